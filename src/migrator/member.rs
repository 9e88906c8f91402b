//! A member of the fleet: its heartbeat, and what it knows of itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::background::Background;
use super::connect::Conn;
use super::events::Event;
use super::fleet::Candidate;
use super::ledger::{Ledger, begin, finish};
use super::monitor::Monitor;
use super::report::Report;
use super::settings::Migrator;
use crate::error::{Error, Kind, Result};

/// This instance's membership in the fleet, from [`Migrator::start`](super::Migrator::start) to
/// [`leave`](Schema::leave).
///
/// Two small tasks belong to it: a heartbeat, and the driver of what is open. Dropped without `leave`, the instance
/// counts as live until its [expiry](super::Migrator::expiry), and holds gates shut for the
/// [grace](super::Migrator::grace) after that.
#[derive(Debug)]
pub struct Schema {
    member: Arc<Member>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    report: Report,
}

/// What a health probe wants to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// Whether this instance may serve: see [`Schema::is_current`].
    pub current: bool,
    /// Why not.
    pub reason: Option<String>,
    /// The time since the database last heard of this instance.
    pub silent: Duration,
    /// Why this instance could not drive migrations when it last tried. It serves all the same.
    pub driver: Option<String>,
}

/// What the tasks share with the handle.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) migrator: Migrator,
    pub(super) ledger: Ledger,
    pub(super) candidate: Candidate,
    standing: watch::Sender<Standing>,
    driver: Mutex<Option<String>>,
}

/// What is known of the row in the ledger.
#[derive(Clone, Debug)]
struct Standing {
    /// When the last heartbeat was sent that the database took.
    beat: Instant,
    /// Why it is not registered.
    out: Option<String>,
    /// Whether the schema has no room for it, and that was told.
    shut: bool,
}

impl Member {
    pub(super) fn id(&self) -> &str {
        &self.candidate.instance.id
    }

    /// Counted from before the heartbeat was sent: never longer than the database counts.
    pub(super) fn is_current(&self) -> bool {
        self.holds(&self.standing.borrow())
    }

    fn holds(&self, standing: &Standing) -> bool {
        standing.out.is_none() && standing.beat.elapsed() < self.candidate.instance.expiry
    }

    /// Whether that is news.
    pub(super) fn set_driver(&self, error: Option<String>) -> bool {
        let mut slot = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *slot != error;
        *slot = error;
        news
    }

    async fn beats(self: Arc<Self>) {
        let monitor = Monitor::new(self.migrator.connector.clone());
        let mut ticks = interval(self.migrator.heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Registering was the first.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let begun = Instant::now();
            let limit = self.migrator.heartbeat;
            // One that was cut off for too long asks to be let in, whatever the database's clock says of it.
            if !self.is_current() {
                self.expire("the database has not heard of it for too long; it is not registered");
                self.again(begun).await;
                continue;
            }
            match monitor.answer(limit, self.beat(&monitor)).await {
                Ok(Some(conn)) if self.is_current() => {
                    self.took(begun);
                    // That it is alive does not hang on the rest of the ledger.
                    if let Err(error) = monitor.answer(limit, self.note_if_older(&conn)).await {
                        tracing::warn!(target: "phasewise", %error, "what this instance holds back was not noted; trying again");
                    }
                }
                Ok(_) => self.again(begun).await,
                Err(error) => {
                    tracing::warn!(target: "phasewise", %error, "the instance's heartbeat failed; trying again");
                }
            }
        }
    }

    /// `None`: it came too late, or its row is gone.
    async fn beat(&self, monitor: &Monitor) -> Result<Option<Arc<Conn>>> {
        let conn = monitor.conn().await?;
        Ok(self.ledger.beat(&conn, self.id()).await?.then_some(conn))
    }

    /// Notes where this instance is older than the next phase allows.
    async fn note_if_older(&self, conn: &Conn) -> Result<()> {
        let book = self.ledger.read(conn).await?;
        let fleet = self.migrator.fleet(&book, Some(&self.candidate));
        let instance = &self.candidate.instance;
        let schema = &self.candidate.schema;
        let phases = fleet.too_old_for(instance, |record| self.migrator.subject(record, schema));
        if phases.is_empty() {
            return Ok(());
        }
        begin(conn).await?;
        let noted = self.ledger.saw(conn, &phases).await;
        finish(conn, noted).await
    }

    fn took(&self, begun: Instant) {
        let mut returned = false;
        self.standing.send_modify(|standing| {
            returned = !self.holds(standing);
            *standing = Standing { beat: begun, out: None, shut: false };
        });
        if returned {
            tracing::info!(target: "phasewise", id = self.id(), "current again");
            self.migrator.tell(&Event::Returned { instance: self.id() });
        }
    }

    /// How long an answer of the database is waited for.
    pub(super) fn patience(&self) -> Duration {
        self.migrator.heartbeat.max(Duration::from_secs(10))
    }

    /// Says that it has expired, once.
    fn expire(&self, why: &str) {
        let mut first = false;
        self.standing.send_modify(|standing| {
            first = standing.out.is_none();
            standing.out.get_or_insert_with(|| why.to_owned());
        });
        if first {
            tracing::warn!(target: "phasewise", id = self.id(), why, "this instance has expired; registering again");
            self.migrator.tell(&Event::Expired { instance: self.id() });
        }
    }

    /// After a beat that came too late: it is let in again, if the schema still has room for it.
    async fn again(&self, begun: Instant) {
        self.expire("its heartbeat came too late, or its row is gone; it is not registered");
        let let_in = async {
            let look = self.migrator.look().await?;
            self.migrator.let_in(&look, &self.candidate).await
        };
        let Ok(let_in) = tokio::time::timeout(self.patience(), let_in).await else {
            tracing::warn!(target: "phasewise", id = self.id(), "registering again was not answered; trying again");
            return;
        };
        let Err(error) = let_in else { return self.took(begun) };
        let shut = error.kind() == Kind::OutsideWindow;
        let mut told = false;
        self.standing.send_modify(|standing| {
            told = standing.shut;
            standing.shut |= shut;
            standing.out = Some(error.to_string());
        });
        if !shut {
            tracing::warn!(target: "phasewise", id = self.id(), %error, "not registered again; trying again");
        } else if !told {
            tracing::error!(target: "phasewise", id = self.id(), %error, "this instance must not serve");
            self.migrator.tell(&Event::ShutOut { instance: self.id(), error: &error });
        }
    }
}

impl Schema {
    /// `registered`: from before it was.
    pub(super) fn new(
        migrator: &Migrator,
        ledger: Ledger,
        candidate: Candidate,
        report: Report,
        registered: Instant,
    ) -> Self {
        let (standing, _) = watch::channel(Standing { beat: registered, out: None, shut: false });
        let member = Arc::new(Member {
            migrator: migrator.clone(),
            ledger,
            candidate: Candidate { served: true, ..candidate },
            standing,
            driver: Mutex::new(None),
        });
        let (id, service) = (member.id(), &migrator.instance);
        tracing::info!(target: "phasewise", id, service, "joined the fleet");
        migrator.tell(&Event::Joined { instance: id, service });
        let mut tasks = vec![tokio::spawn(Arc::clone(&member).beats())];
        if migrator.drives {
            tasks.push(tokio::spawn(Background::new(Arc::clone(&member)).run()));
        }
        Self { member, tasks: Mutex::new(tasks), report }
    }

    /// What `start` did before it joined.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The id under which this instance is registered.
    #[must_use]
    pub fn id(&self) -> &str {
        self.member.id()
    }

    /// Whether this instance is registered, and so may serve: what a readiness probe answers.
    ///
    /// `false` once nothing has been heard of it in the database for its [expiry](super::Migrator::expiry): the process
    /// was stopped, or is cut off. The schema may move on without it then, so it must not go on writing. Cheap: it looks
    /// at a clock, and may be asked before every request.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.member.is_current()
    }

    /// What a health probe wants to know. Asks nobody.
    #[must_use]
    pub fn health(&self) -> Health {
        let standing = self.member.standing.borrow().clone();
        let silent = standing.beat.elapsed();
        let current = self.member.holds(&standing);
        let reason = standing.out.or_else(|| {
            (!current).then(|| format!("the database has not heard of it for {:.0} s", silent.as_secs_f64()))
        });
        let driver = self.member.driver.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Health { current, reason, silent, driver }
    }

    /// Waits until this instance [is current](Self::is_current): at once, but for one that has expired and is registering
    /// again.
    ///
    /// # Errors
    ///
    /// After `limit`: [`Kind::OutsideWindow`] if the schema has no room for it; [`Kind::Connection`] if the database is not
    /// heard of, or has not let it in again yet.
    pub async fn wait_ready(&self, limit: Duration) -> Result<()> {
        let mut standing = self.member.standing.subscribe();
        let ready = standing.wait_for(|standing| self.member.holds(standing));
        if let Ok(Ok(_)) = tokio::time::timeout(limit, ready).await {
            return Ok(());
        }
        let shut = self.member.standing.borrow().shut;
        Err(Error::new(
            if shut { Kind::OutsideWindow } else { Kind::Connection },
            format!(
                "instance {} of {} is not current: {}",
                self.id(),
                self.member.migrator.instance,
                self.health().reason.unwrap_or_else(|| "its heartbeat is late".to_owned())
            ),
        ))
    }

    /// Leaves the fleet: this instance no longer holds any migration back, and [is not current](Self::is_current) any more.
    /// What its background driver has under way is given up, and another one resumes it.
    ///
    /// Call it once nothing of the old or the new shape is used here any more: after the last request.
    ///
    /// # Errors
    ///
    /// [`Kind::Connection`](crate::Kind::Connection); the row then expires by itself.
    pub async fn leave(&self) -> Result<()> {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            task.abort();
            // A beat that is being sent at this moment would put the row back.
            let _ = task.await;
        }
        let member = &self.member;
        member.standing.send_modify(|standing| standing.out = Some("it has left the fleet".to_owned()));
        let unregistered = async {
            let conn = member.migrator.connector.open().await?;
            // It may have written until now.
            let noted = member.note_if_older(&conn).await;
            noted.and(member.ledger.unregister(&conn, member.id()).await)
        };
        let limit = member.patience();
        let Ok(unregistered) = tokio::time::timeout(limit, unregistered).await else {
            return Err(Error::new(
                Kind::Connection,
                format!(
                    "the database did not answer in {:.0} s when instance {} left: it counts as live until it has expired",
                    limit.as_secs_f64(),
                    member.id()
                ),
            ));
        };
        unregistered
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}
