//! Phases that only wait for a deploy: nothing happens in the database, and reverting the deploy undoes them.

use std::time::Duration;

use super::Replace;
use crate::error::Result;
use crate::phase::{Context, Gate, Phase, Rollback, Window};
use crate::step::Step;

/// The application writes both columns and reads the source: release 1.
#[derive(Clone, Copy, Debug)]
pub struct WriteBoth(());

/// The application reads the target and still writes both: release 2.
#[derive(Clone, Copy, Debug)]
pub struct SwitchReads(());

/// The application uses the target only; triggers serve whoever still uses the source: release 1.
#[derive(Clone, Copy, Debug)]
pub struct SwitchOver(pub(crate) Replace);

impl WriteBoth {
    pub(crate) const fn new() -> Self {
        Self(())
    }
}

impl SwitchReads {
    pub(crate) const fn new() -> Self {
        Self(())
    }
}

impl Phase for WriteBoth {
    const NAME: &'static str = "WriteBoth";
    const WINDOW: Window = Window::new(0, 1);
    const GATE: Gate = Gate::fleet(1);

    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }

    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
}

impl Phase for SwitchReads {
    const NAME: &'static str = "SwitchReads";
    const WINDOW: Window = Window::new(1, 2);
    const GATE: Gate = Gate::fleet(2);

    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }

    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
}

impl Phase for SwitchOver {
    const NAME: &'static str = "SwitchOver";
    const WINDOW: Window = Window::new(0, 1);
    const GATE: Gate = Gate::fleet(1).and_soak().and_unreferenced();

    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }

    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }

    fn soak(&self) -> Option<Duration> {
        self.0.soak
    }
}
