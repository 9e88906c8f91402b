//! An instance starts: it brings the schema forward, waits where it must, and joins the fleet.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::connect::{Sql as _, get};
use super::door::{Misfit, Refusal, leaves_the_windows};
use super::drive::Look;
use super::fleet::{Candidate, Fleet, Subject};
use super::gates::Goal;
use super::ledger::{Book, Instance, RETIRED, Record, begin, finish};
use super::member::Schema;
use super::reach::Reach;
use super::report::Report;
use super::settings::Migrator;
use crate::error::{Error, Kind, Result};
use crate::migration::Entry;

impl Migrator {
    pub(super) async fn join(&self) -> Result<Schema> {
        let begun = Instant::now();
        let mut look = self.look().await?;
        let candidate = self.candidate(&look).await?;
        let (mut pause, mut turn) = (Duration::from_millis(200), 0_u32);
        loop {
            self.judge(&look, Goal::Serve(&candidate)).unchanged()?;
            self.refuse_what_is_too_old(&look.book, &candidate)?;
            // What is left of the time to wait is all that another driver gets.
            let left = self.start_wait.saturating_sub(begun.elapsed()).min(self.lease_wait);
            let mut driver = self.clone();
            driver.lease_wait = left;
            driver.quiet = turn > 0;
            turn += 1;
            // A build that will not be let in must not open gates: the one before it would be shut out too. A database
            // without a ledger may be fresh, and have none.
            let stuck = match look.facts.has_ledger {
                true => self.waits_in_vain(&look.book, &candidate),
                false => None,
            };
            let idle = !self.drives_at_start || stuck.is_some();
            let driven = match idle {
                true => Ok(Report::default()),
                false => driver.drive(Goal::Serve(&candidate)).await,
            };
            look = self.look().await?;
            let (mut report, failed) = match driven {
                Ok(report) => (report, None),
                Err(error) if leaves_the_windows(&look.book, &error) => {
                    tracing::warn!(target: "phasewise", %error, "could not migrate; starting as far as the schema allows");
                    (Report::default(), Some(error))
                }
                Err(error) => return Err(error),
            };
            // With nothing to migrate there is no ledger yet, and still a fleet to join.
            if !look.facts.has_ledger {
                // Whoever founds it finds out whether the database is fresh: where there is anything to do, a job.
                let left = if self.drives_at_start { None } else { self.refusal(&look.book, &candidate) };
                let founded = match left {
                    Some(refusal) => Err(refusal.error),
                    None => self.found(&mut look).await.map(drop),
                };
                if let Err(error) = founded {
                    if self.drives_at_start || begun.elapsed() >= self.start_wait {
                        return Err(error);
                    }
                    look = self.look_again(&mut pause).await?;
                    continue;
                }
            }
            let at = Instant::now();
            let registered = self.register(&look, &candidate).await?;
            let Err(refusal) = registered else {
                if failed.is_some() || idle {
                    report.unknown = self.unknown(&look.book);
                    self.conclude(&mut report, &look, Goal::Serve(&candidate), false);
                    report.failed = failed.map(|error| error.to_string());
                }
                report.took = begun.elapsed();
                return Ok(Schema::new(self, look.ledger, candidate, report, at));
            };
            // Rows that its step fails on do not mend themselves.
            let hopeless = failed.as_ref().is_some_and(|error| {
                matches!(error.kind(), Kind::Step | Kind::Backfill)
                    && error.migration() == refusal.error.migration()
            });
            // What holds up all of this build, before what waits for the build alone.
            let refusal = stuck.filter(|_| refusal.misfit == Misfit::TooNew).unwrap_or(refusal);
            if refusal.misfit == Misfit::TooOld || hopeless || begun.elapsed() >= self.start_wait {
                return Err(match failed {
                    Some(failed) => refusal.besides(&failed),
                    None => refusal.error,
                });
            }
            tracing::info!(target: "phasewise", reason = %refusal.error, "waiting to be let in");
            look = self.look_again(&mut pause).await?;
        }
    }

    /// After a rest, longer each time.
    async fn look_again(&self, pause: &mut Duration) -> Result<Look> {
        sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        *pause = (*pause * 2).min(Duration::from_secs(2));
        self.look().await
    }

    /// This instance, as it would be registered.
    async fn candidate(&self, look: &Look) -> Result<Candidate> {
        let rows =
            look.conn.ask("SELECT gen_random_uuid()::text AS id, clock_timestamp() AS now", &[]).await?;
        let row = rows
            .first()
            .ok_or_else(|| Error::new(Kind::Connection, "the server answered nothing; try again"))?;
        let now = get(row, "now")?;
        let elsewhere = |entry: &&'static Entry| {
            let named = entry.services();
            entry.release() > 0 && !named.is_empty() && !named.contains(&self.instance.as_str())
        };
        for entry in self.migrations.iter().filter(elsewhere) {
            let (migration, service, named) = (entry.name(), &self.instance, entry.services());
            tracing::warn!(target: "phasewise", migration, service, ?named, "it names its services, and this is none of them: no window keeps this build out, and no gate waits for it");
        }
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
            served: false,
            schema: schema.clone(),
        })
    }

    /// Said before anything is driven: a build from the past must not move the schema.
    fn refuse_what_is_too_old(&self, book: &Book, candidate: &Candidate) -> Result<()> {
        match self.refusal(book, candidate) {
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
            if let Some(refusal) = self.refusal(&book, candidate) {
                return Ok(Err(refusal));
            }
            look.ledger.register(conn, &candidate.instance, &candidate.lists, self.grace).await?;
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
}
