//! The door: whether an instance may serve beside the schema as it stands.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::connect::{Sql as _, get};
use super::drive::Look;
use super::fleet::{Candidate, Fleet, Subject};
use super::gates::{Goal, Judge};
use super::ledger::{Book, Instance, RETIRED, Record, begin, finish};
use super::member::Schema;
use super::reach::Reach;
use super::report::Report;
use super::settings::Migrator;
use super::status::State;
use crate::error::{Error, Kind, Result};

/// How an instance stands to a migration that it may not serve beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Misfit {
    /// The schema has gone beyond it: nothing that it could wait for.
    TooOld,
    /// The schema has not come to it yet.
    TooNew,
}

/// Why an instance may not serve.
#[derive(Debug)]
struct Refusal {
    misfit: Misfit,
    error: Error,
}

impl Migrator {
    pub(super) async fn join(&self) -> Result<Schema> {
        let begun = Instant::now();
        let mut look = self.look().await?;
        let candidate = self.candidate(&look).await?;
        let (mut pause, mut turn) = (Duration::from_millis(200), 0_u32);
        loop {
            self.refuse_what_is_too_old(&look.book, &candidate)?;
            // What is left of the time to wait is all that another driver gets.
            let left = self.start_wait.saturating_sub(begun.elapsed()).min(self.lease_wait);
            let mut driver = self.clone();
            driver.lease_wait = left;
            driver.quiet = turn > 0;
            turn += 1;
            // A build that will not be let in must not open gates: the one before it would be shut out too.
            let in_vain = self.waits_in_vain(&look.book, &candidate);
            let driven =
                if in_vain { Ok(Report::default()) } else { driver.drive(Goal::Serve(&candidate)).await };
            let (mut report, failed) = match driven {
                Ok(report) => (report, None),
                Err(error) if leaves_the_windows(&look.book, &error) => {
                    tracing::warn!(target: "phasewise", %error, "could not migrate; starting as far as the schema allows");
                    (Report::default(), Some(error.to_string()))
                }
                Err(error) => return Err(error),
            };
            look = self.look().await?;
            // With nothing to migrate there is no ledger yet, and still a fleet to join.
            if !look.facts.has_ledger {
                self.found(&mut look).await?;
            }
            let at = Instant::now();
            let registered = self.register(&look, &candidate).await?;
            let Err(refusal) = registered else {
                if failed.is_some() {
                    report.unknown = self.unknown(&look.book);
                    self.conclude(&mut report, &look, Goal::Serve(&candidate), false);
                    report.failed = failed;
                }
                report.took = begun.elapsed();
                return Ok(Schema::new(self, look.ledger, candidate, report, at));
            };
            if refusal.misfit == Misfit::TooOld || begun.elapsed() >= self.start_wait {
                return Err(match failed {
                    Some(failed) => {
                        Error::new(refusal.error.kind(), format!("{}. Besides: {failed}", refusal.error))
                    }
                    None => refusal.error,
                });
            }
            tracing::info!(target: "phasewise", reason = %refusal.error, "waiting to be let in");
            sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(Duration::from_secs(2));
            look = self.look().await?;
        }
    }

    /// This instance, as it would be registered.
    async fn candidate(&self, look: &Look) -> Result<Candidate> {
        let rows =
            look.conn.ask("SELECT gen_random_uuid()::text AS id, clock_timestamp() AS now", &[]).await?;
        let row = rows
            .first()
            .ok_or_else(|| Error::new(Kind::Connection, "the server answered nothing; try again"))?;
        let now = get(row, "now")?;
        let schema = &look.facts.scope.schema;
        let listed = self.migrations.iter().map(|entry| (entry.name().to_owned(), entry.release()));
        let retired = self.migrations.retired_names().iter().map(|&name| (name.to_owned(), RETIRED));
        let lists = self
            .migrations
            .iter()
            .map(|entry| (entry.name().to_owned(), Reach::of(&entry.touches(), schema)));
        Ok(Candidate {
            instance: Instance {
                id: get(row, "id")?,
                service: self.instance.clone(),
                releases: listed.chain(retired).collect(),
                // One late beat must not look like an absence.
                expiry: self.expiry.max(self.heartbeat.saturating_mul(2)),
                started: now,
                seen: now,
                age: Duration::ZERO,
                failed: None,
            },
            lists: lists.collect(),
            schema: schema.clone(),
        })
    }

    /// Whether a migration that has no room for this instance waits for what the instance cannot bring about.
    fn waits_in_vain(&self, book: &Book, candidate: &Candidate) -> bool {
        let schema = candidate.schema.as_str();
        let judge = Judge { migrator: self, book, schema, goal: Goal::Serve(candidate) };
        let fleet = judge.fleet();
        self.migrations.iter().any(|entry| {
            let release = fleet.release(&Subject::of(entry, schema), &candidate.instance);
            release.is_some_and(|release| release > book.window(entry.name()).hi)
                && matches!(
                    judge.state(entry, self.assume_fresh),
                    State::Waiting { .. } | State::Soaking { .. } | State::Paused
                )
        })
    }

    /// Said before anything is driven: a build from the past must not move the schema.
    fn refuse_what_is_too_old(&self, book: &Book, candidate: &Candidate) -> Result<()> {
        match self.misfit(book, candidate) {
            Some(refusal) if refusal.misfit == Misfit::TooOld => Err(refusal.error),
            _ => Ok(()),
        }
    }

    /// Checks the windows and joins, in one transaction: no migration moves meanwhile.
    pub(super) async fn let_in(&self, look: &Look, candidate: &Candidate) -> Result<()> {
        self.register(look, candidate).await?.map_err(|refusal| refusal.error)
    }

    async fn register(&self, look: &Look, candidate: &Candidate) -> Result<std::result::Result<(), Refusal>> {
        let conn = &look.conn;
        begin(conn).await?;
        let registered = async {
            look.ledger.share(conn).await?;
            let book = look.ledger.read(conn).await?;
            if let Some(refusal) = self.misfit(&book, candidate) {
                return Ok(Err(refusal));
            }
            look.ledger.register(conn, &candidate.instance, &candidate.lists).await?;
            let fleet = self.fleet(&book, Some(candidate));
            let phases =
                fleet.too_old_for(&candidate.instance, |record| self.subject(record, &candidate.schema));
            look.ledger.saw(conn, &phases).await?;
            Ok(Ok(()))
        }
        .await;
        finish(conn, registered).await
    }

    pub(super) fn fleet<'a>(&self, book: &'a Book, candidate: Option<&'a Candidate>) -> Fleet<'a> {
        Fleet { book, candidate, grace: self.grace }
    }

    pub(super) fn subject(&self, record: &Record, schema: &str) -> Subject {
        // What this build says of it counts for more than what another one said.
        let entry = self.migrations.get(&record.name);
        entry.map_or_else(|| Subject::recorded(record), |entry| Subject::of(entry, schema))
    }

    /// The first migration beside which this instance may not serve.
    fn misfit(&self, book: &Book, candidate: &Candidate) -> Option<Refusal> {
        let schema = candidate.schema.as_str();
        let judge = Judge { migrator: self, book, schema, goal: Goal::Serve(candidate) };
        let fleet = judge.fleet();
        for entry in self.migrations.iter() {
            let Some(release) = fleet.release(&Subject::of(entry, schema), &candidate.instance) else {
                continue;
            };
            let record = book.record(entry.name());
            let window = book.window(entry.name());
            if window.contains(release) {
                continue;
            }
            let phase = standing(record);
            let (misfit, advice) = if release < window.lo {
                let lo = window.lo;
                (
                    Misfit::TooOld,
                    format!(
                        "deploy a build that speaks release {lo} or newer; or roll the migration back until its window has release {release} in it"
                    ),
                )
            } else {
                let hi = window.hi;
                let advice = match judge.state(entry, self.assume_fresh) {
                    State::Pending => {
                        "it has not begun. Let it move on first, then deploy this build".to_owned()
                    }
                    State::InProgress => {
                        "it is under way. Let it move on first, then deploy this build".to_owned()
                    }
                    State::Paused => {
                        "it is paused. Resume it and let it move on first, then deploy this build".to_owned()
                    }
                    state @ (State::Soaking { .. } | State::HeldUp { .. }) => {
                        format!("it {state}. Let it move on first, then deploy this build")
                    }
                    state => format!(
                        "it {state}. Deploy a build that speaks release {hi} everywhere first, and let the migration move on, then this one"
                    ),
                };
                (Misfit::TooNew, advice)
            };
            return Some(Refusal {
                misfit,
                error: Error::new(
                    Kind::OutsideWindow,
                    format!(
                        "this build may not serve: migration {} stands in {phase}, where releases {window} may run, and this build speaks release {release}: {advice}",
                        entry.name()
                    ),
                ),
            });
        }
        let unlisted = book.records.values().filter(|record| self.migrations.get(&record.name).is_none());
        unlisted.into_iter().find_map(|record| {
            let release = fleet.release(&Subject::recorded(record), &candidate.instance)?;
            let window = record.window();
            if window.contains(release) {
                return None;
            }
            let name = &record.name;
            let advice = if self.migrations.is_retired(name) {
                "Let it come to its end with a build that lists it, then deploy this one".to_owned()
            } else if record.done() {
                format!("Deploy a build that lists it; or, if the code needs nothing old of it, name it: migrations![…].retired(&[\"{name}\"])")
            } else {
                format!("Deploy a build that lists it and speaks release {} or newer; or roll it back, with a build that lists it, until release {release} may run", window.lo)
            };
            let says = if self.migrations.is_retired(name) {
                format!("names migration {name} as retired, which it is not yet")
            } else {
                format!("does not know migration {name}, and not knowing it is release 0")
            };
            Some(Refusal {
                misfit: Misfit::TooOld,
                error: Error::new(
                    Kind::OutsideWindow,
                    format!(
                        "this build may not serve: it {says}. It stands in {}, where releases {window} may run. {advice}",
                        standing(Some(record))
                    ),
                ),
            })
        })
    }
}

/// Whether an error says nothing of whether this build may serve: the windows do.
pub(super) fn leaves_the_windows(book: &Book, error: &Error) -> bool {
    match error.kind() {
        Kind::Busy
        | Kind::LeaseLost
        | Kind::Locked
        | Kind::Backfill
        | Kind::Step
        | Kind::GateClosed
        | Kind::OutsideWindow
        // Those that may are others, such as a job.
        | Kind::Permission => true,
        // Planning took it once, so what it refuses now came later: no reason for those that run to be unable to start
        // again.
        Kind::Conflict | Kind::Missing | Kind::Unsupported => {
            let record = error.migration().and_then(|name| book.record(name));
            record.is_some_and(Record::begun)
        }
        _ => false,
    }
}

fn standing(record: Option<&Record>) -> &str {
    record.and_then(Record::here).map_or("no phase yet", |place| &place.name)
}
