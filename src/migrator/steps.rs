//! Running steps: probe, act, note.

use std::collections::BTreeMap;
use std::time::Instant;

use sha2::Digest as _;

use super::driver::Driver;
use super::events::Event;
use super::ledger::{At, to_json};
use crate::error::{Error, Kind, Result};
use crate::step::{Action, Probe, Step};

/// What one step came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    /// Whether anything was to be done.
    pub(super) ran: bool,
    /// Rows that batches wrote.
    pub(super) rows: u64,
}

impl Driver<'_> {
    /// Runs the steps that are not done yet, in order.
    pub(super) async fn run_steps(&mut self, at: At<'_>, steps: &[Step]) -> Result<()> {
        let (migration, phase) = (at.migration, at.phase);
        for (step, id) in steps.iter().zip(identities(steps)?) {
            if self.is_done(at, step, &id).await? {
                self.report.of(migration).steps_skipped += 1;
                self.migrator.tell(&Event::StepSkipped { migration, phase, step });
                continue;
            }
            self.migrator.tell(&Event::StepStarted { migration, phase, step });
            tracing::debug!(target: "phasewise", migration, phase, step = step.summary, "step");
            let begun = Instant::now();
            let outcome = self.act(at, step, &id).await?;
            let report = self.report.of(migration);
            report.rows += outcome.rows;
            if outcome.ran {
                report.steps_run += 1;
                let took = begun.elapsed();
                self.migrator.tell(&Event::StepDone { migration, phase, step, took, rows: outcome.rows });
            } else {
                report.steps_skipped += 1;
                self.migrator.tell(&Event::StepSkipped { migration, phase, step });
            }
        }
        Ok(())
    }

    pub(super) async fn is_done(&self, at: At<'_>, step: &Step, id: &str) -> Result<bool> {
        if matches!(step.action, Action::BuildIndex(_) | Action::DropIndex(_)) {
            // These look for themselves: an index that is gone may still have left a remnant.
            return Ok(false);
        }
        match &step.probe {
            Probe::Sql(query) => {
                let doing = format!(
                    "migration {}, phase {}: looking whether \"{}\" is done",
                    at.migration, at.phase, step.summary
                );
                let rows = self
                    .session
                    .query_typed(query, &[])
                    .await
                    .map_err(|error| Error::postgres_said(&doing, error))?;
                let Some(row) = rows.first() else { return Ok(false) };
                let done: Option<bool> = row.try_get(0).map_err(|error| {
                    Error::new(
                        Kind::Definition,
                        format!(
                            "{doing}: the probe's first column is no boolean: {error}; mend the phase's probe"
                        ),
                    )
                    .with_source(error)
                })?;
                Ok(done.unwrap_or(false))
            }
            Probe::Ledger => self.ledger.is_noted(&self.session, at, id).await,
            Probe::Repeatable => Ok(false),
        }
    }

    async fn act(&mut self, at: At<'_>, step: &Step, id: &str) -> Result<Outcome> {
        let note = (step.probe == Probe::Ledger).then_some(id);
        let ran = Outcome { ran: true, rows: 0 };
        match &step.action {
            Action::Transaction(statements) => {
                Box::pin(self.transaction(at, step, statements, note, false)).await?;
                Ok(ran)
            }
            Action::Long(statement) => {
                Box::pin(self.transaction(at, step, std::slice::from_ref(statement), note, true)).await?;
                Ok(ran)
            }
            Action::Autocommit(statement) => {
                self.autocommit(at, &step.summary, statement).await?;
                if let Some(note) = note {
                    self.begin(self.own_timeouts()).await?;
                    let noted = self.ledger.note(&self.session, at, note).await;
                    self.finish(noted).await?;
                }
                Ok(ran)
            }
            Action::BuildIndex(build) => Box::pin(self.build_index(at, step, build)).await,
            Action::DropIndex(drop) => Box::pin(self.drop_index(at, step, drop)).await,
            Action::Batches(batches) => Box::pin(self.batches(at, batches, id)).await,
            Action::Save { key, value } => {
                self.begin(self.own_timeouts()).await?;
                let saved = self.ledger.save(&self.session, at, key, value).await;
                self.finish(saved).await?;
                Ok(ran)
            }
        }
    }
}

/// What the steps of a phase are noted under: each a hash of all that it is, and its number among those that are equal.
pub(super) fn identities(steps: &[Step]) -> Result<Vec<String>> {
    let mut equal = BTreeMap::new();
    steps
        .iter()
        .map(|step| {
            let text = to_json(step)?.to_string();
            let digest = sha2::Sha256::digest(text.as_bytes());
            let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let number = equal.entry(hash.clone()).and_modify(|number| *number += 1).or_insert(1);
            Ok(if *number == 1 { hash } else { format!("{hash} {number}") })
        })
        .collect()
}
