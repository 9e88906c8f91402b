//! Batches that wait: for what they give way to, for people, and for their own rest.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::job::Job;
use crate::error::{Error, Kind, Result};
use crate::migrator::events::Event;
use crate::migrator::ledger::{Control, Direction};
use crate::migrator::throttles;
use crate::migrator::worker::Worker;

/// How often a loop that somebody has paused looks whether it may go on.
const PAUSED: Duration = Duration::from_millis(200);

/// How often a long rest is interrupted for a look at what people ask for.
const LOOK: Duration = Duration::from_secs(1);

impl Worker<'_> {
    /// Waits before a batch of single rows as the walk does, and says what people ask for.
    pub(super) async fn wait_for_leave(&self, job: &Job<'_>) -> Result<Control> {
        loop {
            self.hold(job).await?;
            let control = self.ledger.control(&self.session, job.at.migration).await?;
            if !control.paused || job.at.direction != Direction::Forward {
                return Ok(control);
            }
            self.wait_while_paused(job).await?;
        }
    }

    /// Says in the ledger why the rest before the next batch is longer; that batch takes it back.
    pub(super) async fn note_crowd(&self, job: &Job<'_>, part: i32, crowd: i64) -> Result<()> {
        let reason = format!("clients waited for the last batch ({crowd} were seen)");
        self.ledger.set_reason(&self.session, job.at, job.id, Some(part), Some(&reason)).await
    }

    /// Rests between two batches: no longer than people want it to, by what they ask for now.
    pub(super) async fn rest(&self, job: &Job<'_>, rest: Duration, control: Control) -> Result<()> {
        let begun = Instant::now();
        while !job.is_stopped() {
            let left = rest.saturating_sub(begun.elapsed());
            sleep(left.min(LOOK)).await;
            if left <= LOOK || self.ledger.control(&self.session, job.at.migration).await? != control {
                break;
            }
        }
        Ok(())
    }

    /// Waits while there is a reason to. One worker asks; the others wait for its answer.
    pub(super) async fn hold(&self, job: &Job<'_>) -> Result<()> {
        let mut throttles = job.throttles.lock().await;
        let mut said: Option<String> = None;
        loop {
            let Some(reason) = throttles.hold(&self.session).await? else { break };
            self.say(job, &mut said, &reason).await?;
            // What a person holds gives way to a rollback, whatever else it waits for.
            let control = self.ledger.control(&self.session, job.at.migration).await?;
            if self.brief || self.migrator.gives_way && control.wanted {
                return Err(gave_way(job));
            }
            let held = job.at.direction == Direction::Forward && control.paused;
            if held || job.is_stopped() {
                return Ok(());
            }
            sleep(throttles::EVERY).await;
        }
        job.set_busy(throttles.are_clients_about());
        self.unsay(job, said).await
    }

    /// Waits until a person lets the migration go on.
    pub(super) async fn wait_while_paused(&self, job: &Job<'_>) -> Result<()> {
        let begun = Instant::now();
        let mut said: Option<String> = None;
        while self.ledger.control(&self.session, job.at.migration).await?.paused && !job.is_stopped() {
            self.say(job, &mut said, "it is paused; `resume` lets it go on").await?;
            if self.brief || self.ledger.is_wanted(&self.session, begun.elapsed()).await? {
                return Err(gave_way(job));
            }
            sleep(PAUSED).await;
        }
        self.unsay(job, said).await
    }

    /// Says why batches pause, here and in the ledger. Once, however its figures change.
    async fn say(&self, job: &Job<'_>, said: &mut Option<String>, reason: &str) -> Result<()> {
        if self.lease.is_lost() {
            self.migrator.tell(&Event::LeaseLost);
            return Err(self.lease.lost());
        }
        if said.as_deref().map(wording) != Some(wording(reason)) {
            tracing::info!(target: "phasewise", migration = job.at.migration, phase = job.at.phase, reason, "batches pause");
            let (migration, phase) = (job.at.migration, job.at.phase);
            self.migrator.tell(&Event::Throttled { migration, phase, reason });
        }
        if said.as_deref() != Some(reason) {
            self.ledger.set_reason(&self.session, job.at, job.id, None, Some(reason)).await?;
            *said = Some(reason.to_owned());
        }
        Ok(())
    }

    async fn unsay(&self, job: &Job<'_>, said: Option<String>) -> Result<()> {
        if said.is_some() {
            self.ledger.set_reason(&self.session, job.at, job.id, None, None).await?;
            self.migrator.tell(&Event::Resumed { migration: job.at.migration, phase: job.at.phase });
        }
        Ok(())
    }
}

/// What a loop ends with that makes way for somebody who waits for the lease.
pub(super) fn gave_way(job: &Job<'_>) -> Error {
    Error::new(
        Kind::Busy,
        format!(
            "migration {}, phase {}: somebody waits for the lease, a rollback or an instance that starts, and has it now. What is filled stays filled",
            job.at.migration, job.at.phase
        ),
    )
}

/// A reason without its figures.
fn wording(reason: &str) -> Vec<&str> {
    let figure =
        |word: &&str| word.contains(|c: char| c.is_ascii_digit()) && !word.contains(char::is_alphabetic);
    reason.split_whitespace().filter(|word| !figure(word)).collect()
}
