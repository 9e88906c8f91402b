//! The driver that runs behind a serving application.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::sleep;

use super::events::Event;
use super::gates::{Goal, Judge};
use super::member::Member;
use super::monitor::Monitor;
use super::report::Report;
use super::settings::Migrator;
use crate::error::{Error, Kind, Result};

/// How many polls drivers rest at most that try the same again and again: a search for references, or an index build
/// that fails, is not for every few seconds.
const LONGEST_REST: u32 = 12;

/// Drives what is open, whenever nobody else does.
pub(super) struct Background {
    member: Arc<Member>,
    /// The application's migrator, but patient with nobody.
    migrator: Migrator,
    /// Looking costs no connection of its own.
    monitor: Arc<Monitor>,
}

/// What became of a try.
enum Driven {
    /// It is somebody else's turn, or time to rest.
    Not,
    /// There was nothing to do, or something has moved.
    Well,
    /// All is as it was.
    InVain,
}

impl Background {
    pub(super) fn new(member: Arc<Member>) -> Self {
        let mut migrator = member.migrator.clone();
        migrator.lease_wait = Duration::ZERO;
        migrator.gives_way = true;
        let monitor = Monitor::new(migrator.connector.clone());
        Self { member, migrator, monitor }
    }

    pub(super) async fn run(self) {
        let poll = self.poll();
        let (mut pause, mut alone) = (Duration::ZERO, 1);
        loop {
            // Instances that started together should not all look at the same moment.
            sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            pause = poll;
            // One that has expired may be older than it thinks.
            if !self.member.is_current() {
                continue;
            }
            // What users' code does in here (functions, throttles, changes) must not end the application's driver.
            let driven = match AssertUnwindSafe(self.drive()).catch_unwind().await {
                Ok(driven) => driven,
                Err(panic) => Err(panicked(&*panic)),
            };
            let (error, in_vain) = match driven {
                Ok(Driven::Not) => continue,
                Ok(Driven::Well) => (None, false),
                Ok(Driven::InVain) => (None, true),
                // The others may fare better.
                Err(error) if is_our_own(error.kind()) => (Some(error), false),
                Err(error) => (Some(error), true),
            };
            alone = if error.is_some() && !in_vain { (alone * 2).min(LONGEST_REST) } else { 1 };
            pause = poll * alone;
            self.tell(error, in_vain).await;
        }
    }

    /// Often enough that a lease which has run out finds a taker within its time.
    fn poll(&self) -> Duration {
        self.migrator.poll.min(self.migrator.lease_time / 3)
    }

    async fn drive(&self) -> Result<Driven> {
        if let Some(driven) = self.within(self.look()).await? {
            return Ok(driven);
        }
        match self.migrator.drive(Goal::Open).await {
            Ok(report) if moved(&report) => {
                let roused =
                    self.within(async { self.member.ledger.rouse(&*self.monitor.conn().await?).await });
                if let Err(error) = roused.await {
                    tracing::debug!(target: "phasewise", %error, "the others were not roused");
                }
                Ok(Driven::Well)
            }
            Ok(_) => Ok(Driven::InVain),
            // Somebody else drives, or wants to.
            Err(error) if error.kind() == Kind::Busy => Ok(Driven::Not),
            Err(error) => Err(error),
        }
    }

    /// `None` if there is something to drive.
    async fn look(&self) -> Result<Option<Driven>> {
        let conn = self.monitor.conn().await?;
        let Member { ledger, candidate, .. } = &*self.member;
        if ledger.is_left_alone(&conn, &candidate.instance.service, self.poll() * LONGEST_REST).await? {
            return Ok(Some(Driven::Not));
        }
        let book = ledger.read(&conn).await?;
        let judge =
            Judge { migrator: &self.migrator, book: &book, schema: &candidate.schema, goal: Goal::Open };
        let idle = !self.migrator.anything_to_enter(judge, false)
            && !self.migrator.any_expired(&conn, ledger).await?;
        Ok(idle.then_some(Driven::Well))
    }

    /// What is asked through the kept connection.
    async fn within<T>(&self, asked: impl Future<Output = Result<T>>) -> Result<T> {
        self.monitor.answer(self.member.patience(), asked).await
    }

    /// Says what the last try came to, where that is news.
    async fn tell(&self, error: Option<Error>, in_vain: bool) {
        let news = self.member.set_driver(error.as_ref().map(ToString::to_string));
        if let Some(error) = error.as_ref().filter(|_| news) {
            tracing::error!(target: "phasewise", %error, "could not drive migrations; trying again");
            self.migrator.tell(&Event::DriveFailed { error });
        }
        let noted = async {
            let conn = self.monitor.conn().await?;
            if in_vain {
                let service = &self.member.candidate.instance.service;
                self.member.ledger.rest(&conn, service, self.poll(), self.poll() * LONGEST_REST).await?;
            }
            if news {
                let text = error.as_ref().map(ToString::to_string);
                self.member.ledger.set_failed(&conn, self.member.id(), text.as_deref()).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = self.within(noted).await {
            tracing::debug!(target: "phasewise", %error, "what the driver came to was not noted");
        }
    }
}

/// Whether an error is of this instance or build alone.
fn is_our_own(kind: Kind) -> bool {
    matches!(kind, Kind::Connection | Kind::Permission | Kind::Changed | Kind::LeaseLost | Kind::Definition)
}

fn moved(report: &Report) -> bool {
    report.migrations.is_empty()
        || report.migrations.iter().any(|found| found.steps_run > 0 || !found.entered.is_empty())
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    Error::new(
        Kind::Step,
        format!(
            "code of the application panicked while a migration was driven: {text}; mend it, the driver tries again"
        ),
    )
}
