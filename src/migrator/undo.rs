//! Rollback steps that nothing but the ledger can tell about: which of them have something to undo.

use super::driver::Driver;
use super::ledger::{At, Direction};
use super::planning;
use super::steps::identities;
use crate::error::{Error, Kind, Result};
use crate::migration::Entry;
use crate::phase::Rollback;
use crate::step::{Action, Probe, Step};

fn is_statement(step: &Step) -> bool {
    matches!(step.action, Action::Transaction(_) | Action::Long(_) | Action::Autocommit(_))
        && step.probe != Probe::Repeatable
}

/// The rollback steps of which only the ledger knows whether they are done. They run in the reverse order of what
/// they undo, so where there are as many, each has its counterpart.
fn blind(back: &[Step]) -> Result<Vec<String>> {
    let steps = back.iter().zip(identities(back)?);
    Ok(steps
        .filter(|(step, _)| is_statement(step) && step.probe == Probe::Ledger)
        .map(|(_, id)| id)
        .collect())
}

/// The statements of the way forward, with what they are noted under.
fn forth(steps: &[Step]) -> Result<Vec<(&Step, String)>> {
    Ok(steps.iter().zip(identities(steps)?).filter(|(step, _)| is_statement(step)).collect())
}

impl Driver<'_> {
    /// The identities of the rollback steps that would undo what never happened, in a phase that is half entered.
    pub(super) async fn never_happened(
        &self,
        entry: &'static Entry,
        index: usize,
        back: &[Step],
    ) -> Result<Vec<String>> {
        let (migration, phase) = (entry.name(), entry.phases().get(index).map_or("?", |info| info.name));
        let blind = blind(back)?;
        if blind.is_empty() {
            return Ok(Vec::new());
        }
        let at = At { migration, phase, direction: Direction::Forward };
        let saved = self.ledger.saved(&self.session, migration).await?;
        let scope = &self.session.facts.scope;
        let steps = planning::enter(&self.session, scope, entry, index, &saved).await?;
        let forth = forth(&steps)?;
        let mut done = Vec::new();
        for (step, id) in &forth {
            done.push(self.is_done(at, step, id).await?);
        }
        if done.iter().all(|done| *done) {
            return Ok(Vec::new());
        }
        if !done.contains(&true) {
            return Ok(blind);
        }
        if forth.len() == blind.len() {
            let pairs = blind.into_iter().zip(done.iter().rev());
            return Ok(pairs.filter(|(_, done)| !**done).map(|(id, _)| id).collect());
        }
        let ran: Vec<String> = forth
            .iter()
            .zip(&done)
            .filter(|(_, done)| **done)
            .map(|((step, _), _)| format!("\"{}\"", step.summary))
            .collect();
        Err(Error::new(
            Kind::Irreversible,
            format!(
                "migration {migration}, phase {phase} is half entered, and cannot be undone from there: of {} statements {} ran ({}), and its rollback has {} statements, so nobody knows which of them undo what ran. Nothing was touched. Mend what failed and go on with run_to(\"{migration}\", \"{phase}\"), then roll back; or undo by hand what ran, and give the rollback one statement for each, in reverse order",
                forth.len(),
                ran.len(),
                ran.join(", "),
                blind.len()
            ),
        ))
    }

    /// Whether a phase that is half entered has done nothing yet, as far as can be told: then there is nothing to undo.
    pub(super) async fn nothing_ran(&self, entry: &'static Entry, index: usize) -> Result<bool> {
        let (migration, phase) = (entry.name(), entry.phases().get(index).map_or("?", |info| info.name));
        let at = At { migration, phase, direction: Direction::Forward };
        let saved = self.ledger.saved(&self.session, migration).await?;
        let scope = &self.session.facts.scope;
        let steps = planning::enter(&self.session, scope, entry, index, &saved).await?;
        let mut failed = false;
        for (step, id) in steps.iter().zip(identities(&steps)?) {
            match step.action {
                Action::Save { .. } => {}
                _ if is_statement(step) => {
                    if self.is_done(at, step, &id).await? {
                        return Ok(false);
                    }
                    failed = true;
                }
                // Of these nobody can tell; but after one that failed they never ran.
                _ if !failed => return Ok(false),
                _ => {}
            }
        }
        Ok(failed)
    }

    /// The notes that no longer hold once the rollback of a phase is given up: its own, and those of the way forward
    /// that it undid.
    pub(super) async fn given_up(
        &self,
        entry: &'static Entry,
        index: usize,
        at: At<'_>,
    ) -> Result<Vec<(Direction, String)>> {
        let undone = self.ledger.noted(&self.session, At { direction: Direction::Back, ..at }).await?;
        if undone.is_empty() {
            return Ok(Vec::new());
        }
        let saved = self.ledger.saved(&self.session, at.migration).await?;
        let scope = &self.session.facts.scope;
        let back = match planning::rollback(&self.session, scope, entry, index, &saved).await? {
            Rollback::Steps(steps) => steps,
            Rollback::Irreversible(_) => Vec::new(),
        };
        let steps = planning::enter(&self.session, scope, entry, index, &saved).await?;
        let (forth, blind) = (forth(&steps)?, blind(&back)?);
        let paired = forth.len() == blind.len();
        let mut stale = Vec::new();
        for (nth, (_, id)) in forth.into_iter().rev().enumerate() {
            let undoes = blind.get(nth).filter(|_| paired);
            // Without a counterpart any of them may be undone.
            if undoes.is_none_or(|undoes| undone.contains(undoes)) {
                stale.push((Direction::Forward, id));
            }
        }
        stale.extend(undone.into_iter().map(|step| (Direction::Back, step)));
        Ok(stale)
    }
}
