//! Every release beside every phase: whether it serves, waits or is refused follows from the phases' windows and gates
//! alone.

use std::time::Duration;

use phasewise::{
    Change, DropTable, Error, Kind, Migrations, Migrator, PhaseInfo, Schema, Window, drop_table,
};

use super::*;
use crate::harness::crowd::visit;
use crate::harness::{Stage, migrator, run};

/// The builds of all releases of a change, from one without a mark to the last deploy phase; and the case.
macro_rules! builds {
    ($change:ident, $builder:expr, $($mark:ty),*) => {
        static BUILDS: &[phasewise::Migrations] = &[
            phasewise::migrations![phasewise::Migration::new(stringify!($change), $builder).not_deployed()],
            $(phasewise::migrations![phasewise::Migration::new(stringify!($change), $builder).deployed::<$mark>()],)*
        ];
        static CASE: Case = Case { setup: &[], migrations: &BUILDS[0], schema: "public" };
    };
}

/// The window once `entered` phases are entered, and what an error calls the last of them.
fn standing(phases: &[PhaseInfo], entered: usize) -> (Window, &'static str) {
    entered
        .checked_sub(1)
        .map_or((Window::new(0, 0), "no phase yet"), |at| (phases[at].window, phases[at].name))
}

/// How many phases are entered once a fleet that speaks these releases had its say, without any soak.
fn comes_to(phases: &[PhaseInfo], mut entered: usize, fleet: &[u16]) -> usize {
    while let Some(next) = phases.get(entered) {
        let gate = entered.checked_sub(1).and_then(|at| phases[at].gate.release());
        let held = fleet.iter().any(|speaks| *speaks < next.window.lo);
        let spoken = gate.is_none_or(|release| fleet.iter().any(|speaks| *speaks >= release));
        if held || !spoken {
            break;
        }
        entered += 1;
    }
    entered
}

/// A database with a change on the way, and builds of all of its releases.
struct Walk {
    builds: &'static [Migrations],
    phases: &'static [PhaseInfo],
    fire: Fire,
    stage: Stage,
    /// Numbers of rows that nobody wrote yet.
    row: u64,
}

/// A build for every release, in order.
pub(super) async fn beside_every_phase(builds: &'static [Migrations], change: impl Change, fire: Fire) {
    let phases = fire.case.phases();
    let last = phases.last().expect("a phase").window.hi;
    let spoken: Vec<u16> =
        builds.iter().flat_map(|build| build.iter().map(|entry| entry.release())).collect();
    assert_eq!(spoken, (0..=last).collect::<Vec<_>>(), "a build for every release");

    let mut walk = Walk::begin(builds, fire).await;
    for entered in 0..=phases.len() {
        Box::pin(walk.stage.forward(entered)).await;
        // A build says nothing of a change that has one release only: its code counts on all of it.
        let counted_on = last == 0 && !change.is_optional() && entered < phases.len();
        Box::pin(walk.held(entered, counted_on)).await;
    }
    for entered in 0..=phases.len() {
        for early in standing(phases, entered).0.hi + 1..=last {
            walk = Walk::begin(builds, walk.fire).await;
            Box::pin(walk.stage.forward(entered)).await;
            Box::pin(walk.too_early(entered, early)).await;
        }
    }
}

impl Walk {
    async fn begin(builds: &'static [Migrations], fire: Fire) -> Self {
        let stage = Stage::set(fire.case).await;
        for sql in &fire.setup {
            run(&stage.client, sql).await;
        }
        Self { builds, phases: fire.case.phases(), fire, stage, row: 1000 }
    }

    async fn start(&self, release: u16) -> phasewise::Result<Schema> {
        // Boxed: all in one future would be too much for a test's stack.
        Box::pin(self.build(release).start()).await
    }

    fn build(&self, release: u16) -> Migrator {
        migrator(&self.stage.database, &self.builds[usize::from(release)])
    }

    /// The migration is paused: all releases meet this phase, one after the other.
    async fn held(&mut self, entered: usize, counted_on: bool) {
        let (window, _) = standing(self.phases, entered);
        self.build(0).pause(self.fire.case.name()).await.expect("a pause");
        for release in 0..self.builds.len() {
            let release = u16::try_from(release).expect("few");
            let mut build = self.build(release);
            if release < window.lo {
                // Nothing that it could wait for: it is told at once.
                build = build.start_wait(Duration::from_secs(3600));
            }
            let started = tokio::time::timeout(Duration::from_secs(60), Box::pin(build.start())).await;
            match started.expect("an answer at once") {
                Ok(schema) => {
                    assert!(window.contains(release), "release {release} serves in {window}");
                    assert!(!counted_on, "it serves after {entered} phases");
                    self.serves(schema, release).await;
                }
                Err(error) => {
                    if counted_on {
                        assert_eq!(error.kind(), Kind::OutsideWindow, "{error}");
                        assert!(error.to_string().contains("counts on all of it: it is paused"), "{error}");
                        continue;
                    }
                    assert!(!window.contains(release), "release {release} in {window}: {error}");
                    self.refused(&error, entered, release);
                    if release > window.hi {
                        assert!(error.to_string().contains("it is paused"), "{error}");
                    }
                }
            }
            assert_eq!(self.stage.at().await, entered, "release {release} moved what is paused");
        }
    }

    /// A release that this phase does not allow yet: it waits for what is older, names it, and goes on when that has
    /// left.
    async fn too_early(&mut self, entered: usize, release: u16) {
        let (window, _) = standing(self.phases, entered);
        let old = self.start(window.lo).await.expect("the oldest release of the window");
        let with_old = comes_to(self.phases, entered, &[window.lo]);
        assert_eq!(self.stage.at().await, with_old, "with release {}", window.lo);

        let started = self.start(release).await;
        let with_both = comes_to(self.phases, with_old, &[window.lo, release]);
        assert_eq!(self.stage.at().await, with_both, "with releases {} and {release}", window.lo);
        let (now, _) = standing(self.phases, with_both);
        assert!(now.contains(window.lo), "the schema ran ahead of release {}", window.lo);
        match started {
            Ok(schema) => {
                assert!(now.contains(release), "release {release} serves in {now}");
                self.serves(schema, release).await;
            }
            Err(error) => {
                assert!(!now.contains(release), "release {release} in {now}: {error}");
                self.refused(&error, with_both, release);
                let named = format!("instance {} of default speaks {}", old.id(), window.lo);
                assert!(error.to_string().contains(&named), "{error}");
            }
        }
        self.serves(old, window.lo).await;

        let alone = comes_to(self.phases, with_both, &[release]);
        let schema = self.start(release).await.expect("nobody is in the way");
        assert_eq!(self.stage.at().await, alone, "with release {release} alone");
        self.serves(schema, release).await;
    }

    fn refused(&self, error: &Error, entered: usize, release: u16) {
        let (window, phase) = standing(self.phases, entered);
        let text = error.to_string();
        assert_eq!(error.kind(), Kind::OutsideWindow, "{text}");
        let stands = format!(
            "migration {} stands in {phase}, where releases {window} may run, and this build speaks release {release}:",
            self.fire.case.name()
        );
        assert!(text.contains(&stands), "{text}");
        if release < window.lo {
            assert!(text.contains(&format!("speaks release {} or newer", window.lo)), "{text}");
        }
    }

    /// An instance that was let in, until it leaves.
    async fn serves(&mut self, schema: Schema, release: u16) {
        assert!(schema.is_current());
        self.row += 1;
        let client = self.stage.database.connect().await.expect("a connection");
        visit(&self.fire, client, release, self.row).await;
        schema.leave().await.expect("an instance that leaves");
    }
}

/// A change that has nothing for a crowd to do beside its last phase.
macro_rules! beside {
    ($($change:ident: $script:expr, $builder:expr $(, [$($mark:ty),+])?;)+) => {$(
        #[tokio::test]
        async fn $change() {
            builds!($change, $builder, $($($mark),+)?);
            beside_every_phase(BUILDS, $builder, fire(&CASE, &grounds::plain(), &$script)).await;
        }
    )+};
}

beside! {
    add_nullable: scripts::ELSEWHERE, AddColumn::new("t", "b", "text");
    drop_table: scripts::DROP_TABLE, DropTable::new("t"), [drop_table::StopUse];
    drop_table_quarantined: scripts::DROP_TABLE, DropTable::new("t").quarantine(), [drop_table::StopUse];
}
