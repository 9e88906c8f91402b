//! The driver that runs behind a serving application.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::sleep;

use super::events::Event;
use super::gates::Goal;
use super::member::Member;
use super::settings::Migrator;
use crate::error::{Error, Kind, Result};

/// Drives what is open, whenever nobody else does.
pub(super) struct Background {
    member: Arc<Member>,
    /// The application's migrator, but patient with nobody.
    migrator: Migrator,
}

impl Background {
    pub(super) fn new(member: Arc<Member>) -> Self {
        let mut migrator = member.migrator.clone();
        migrator.lease_wait = Duration::ZERO;
        migrator.gives_way = true;
        Self { member, migrator }
    }

    pub(super) async fn run(self) {
        // Often enough that a lease which has run out finds a taker within its time.
        let poll = self.migrator.poll.min(self.migrator.lease_time / 3);
        let mut pause = Duration::ZERO;
        loop {
            // Instances that started together should not all look at the same moment.
            sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            pause = poll;
            // One that has expired may be older than it thinks.
            if !self.member.is_current() {
                continue;
            }
            // What users' code does in here (functions, throttles, changes) must not end the application's driver.
            let drive = AssertUnwindSafe(self.drive()).catch_unwind();
            let error = match drive.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error),
                Err(panic) => Some(panicked(&*panic)),
            };
            self.tell(error).await;
        }
    }

    async fn drive(&self) -> Result<()> {
        let look = self.migrator.look().await?;
        if !self.migrator.anything_next(&look, Goal::Open, false) {
            return Ok(());
        }
        drop(look);
        match self.migrator.drive(Goal::Open).await {
            // Somebody else drives, or wants to.
            Err(error) if error.kind() == Kind::Busy => Ok(()),
            driven => driven.map(drop),
        }
    }

    /// Says what the last try came to, where that is news.
    async fn tell(&self, error: Option<Error>) {
        if !self.member.set_driver(error.as_ref().map(ToString::to_string)) {
            return;
        }
        if let Some(error) = &error {
            tracing::error!(target: "phasewise", %error, "could not drive migrations; trying again");
            self.migrator.tell(&Event::DriveFailed { error });
        }
        let noted = async {
            let conn = self.migrator.connector.open().await?;
            let text = error.as_ref().map(ToString::to_string);
            self.member.ledger.set_failed(&conn, self.member.id(), text.as_deref()).await
        };
        if let Err(error) = noted.await {
            tracing::debug!(target: "phasewise", %error, "the driver's failure was not noted");
        }
    }
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
