//! The migrator's public face.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, Socket};

use super::To;
use super::archives::ArchiveStatus;
use super::backfill::{self, Compute};
use super::connect::Connector;
use super::events::{Event, Observer, tell};
use super::gates::Goal;
use super::lease::Watch;
use super::member::Schema;
use super::policy::BackfillPolicy;
use super::report::Report;
use super::status::{MigrationStatus, State, Status};
use super::throttles::{Replica, Throttle};
use crate::error::{Error, Kind, Result};
use crate::migration::{Entry, Migrations};
use crate::plan::Plan;

/// Where the ledger is, unless something else is said.
pub(super) const LEDGER_SCHEMA: &str = "phasewise";

/// Drives migrations: from phase to phase, and back.
///
/// Cheap to clone. Every method opens the connections that it needs, takes them out of the pool for good, and closes
/// them at its end, so that no setting leaks. A future that is dropped leaves no statement running.
///
/// ```no_run
/// # async fn example(pool: deadpool_postgres::Pool) -> phasewise::Result<()> {
/// use phasewise::{Migrations, Migrator, migrations};
///
/// static MIGRATIONS: Migrations = migrations![];
///
/// let migrator = Migrator::new(pool, &MIGRATIONS);
/// println!("{}", migrator.status().await?);
/// println!("{}", migrator.run().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Migrator {
    pub(super) connector: Connector,
    pub(super) migrations: &'static Migrations,
    pub(super) instance: String,
    observer: Option<Arc<dyn Observer>>,
    pub(super) schema: Option<String>,
    pub(super) ledger_schema: String,
    pub(super) soak: Duration,
    pub(super) keep_archives: Option<Duration>,
    pub(super) stall_budget: Duration,
    pub(super) lock_deadline: Duration,
    pub(super) lease_wait: Duration,
    pub(super) lease_time: Duration,
    pub(super) policy: BackfillPolicy,
    pub(super) throttles: Vec<Arc<dyn Throttle>>,
    pub(super) replicas: Vec<Replica>,
    pub(super) functions: BTreeMap<String, Arc<dyn Compute>>,
    pub(super) assume_fresh: bool,
    pub(super) heartbeat: Duration,
    pub(super) expiry: Duration,
    pub(super) grace: Duration,
    pub(super) settle: Duration,
    pub(super) start_wait: Duration,
    pub(super) poll: Duration,
    pub(super) drives: bool,
    pub(super) drives_at_start: bool,
    /// Whether its batches make way for an instance that cannot start before it has had the lease.
    pub(super) gives_way: bool,
    /// Whether it keeps to itself what everything waits for: it was told a moment ago.
    pub(super) quiet: bool,
    pub(super) watch: Watch,
}

impl fmt::Debug for Migrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migrator")
            .field("connector", &self.connector)
            .field("instance", &self.instance)
            .field("schema", &self.schema)
            .field("ledger_schema", &self.ledger_schema)
            .field("stall_budget", &self.stall_budget)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Migrator {
    /// Over a pool. Its connections must reach the server itself, not a pooler in transaction mode.
    #[must_use]
    pub fn new(pool: deadpool_postgres::Pool, migrations: &'static Migrations) -> Self {
        Self::over(Connector::Pool(pool), migrations)
    }

    /// Over connections of its own.
    #[must_use]
    pub fn connect<T>(config: Config, tls: T, migrations: &'static Migrations) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + Sync,
        T::TlsConnect: Send + Sync,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        Self::over(Connector::config(config, tls), migrations)
    }

    fn over(connector: Connector, migrations: &'static Migrations) -> Self {
        Self {
            connector,
            migrations,
            instance: "default".to_owned(),
            observer: None,
            schema: None,
            ledger_schema: LEDGER_SCHEMA.to_owned(),
            soak: Duration::from_secs(14 * 24 * 60 * 60),
            keep_archives: None,
            stall_budget: Duration::from_secs(1),
            lock_deadline: Duration::from_secs(60),
            lease_wait: Duration::from_secs(60),
            lease_time: Duration::from_secs(15),
            policy: BackfillPolicy::default(),
            throttles: Vec::new(),
            replicas: Vec::new(),
            functions: BTreeMap::new(),
            assume_fresh: false,
            heartbeat: Duration::from_secs(10),
            expiry: Duration::from_secs(45),
            grace: Duration::from_secs(45),
            settle: Duration::from_secs(10),
            start_wait: Duration::from_secs(60),
            poll: Duration::from_secs(5),
            drives: true,
            drives_at_start: true,
            gives_way: false,
            quiet: false,
            watch: Watch::default(),
        }
    }

    /// The service that this instance belongs to; `start` joins the fleet under this name. Else `default`: give it where
    /// several services share a database.
    #[must_use]
    pub fn instance(mut self, service: impl Into<String>) -> Self {
        self.instance = service.into();
        self
    }

    /// Who hears of events.
    #[must_use]
    pub fn observe(mut self, observer: impl Observer + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Where tables without a written schema are. Else the connection's `current_schema()`.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// The schema of phasewise's own tables. Else `phasewise`. It must not be one where the application has tables:
    /// whatever is in it counts as phasewise's own.
    #[must_use]
    pub fn ledger_schema(mut self, schema: impl Into<String>) -> Self {
        self.ledger_schema = schema.into();
        self
    }

    /// How long a column stays after its last use, where the change does not say. Else 14 days.
    #[must_use]
    pub fn soak(mut self, soak: Duration) -> Self {
        self.soak = soak;
        self
    }

    /// How long archives are kept after the drop, by the database's clock. Else for ever: nothing is purged that nobody
    /// asked for.
    ///
    /// After that time the next [`run`](Migrator::run) of a migrator that says so, or its driver in the background, purges
    /// those of the migrations that this build lists or names as [retired](crate::Migrations::retired); the drop is
    /// [`Irreversible`](crate::Irreversible) then. Ninety days are a good beginning.
    #[must_use]
    pub fn keep_archives(mut self, time: Duration) -> Self {
        self.keep_archives = Some(time);
        self
    }

    /// The longest time that any client may be made to wait by one of our locks. Else 1 s.
    ///
    /// Tries for a lock begin at 50 ms and grow up to this. Less than 50 ms is taken as it is.
    #[must_use]
    pub fn stall_budget(mut self, budget: Duration) -> Self {
        self.stall_budget = budget.max(Duration::from_millis(1));
        self
    }

    /// How long a lock is tried for before the run gives up with [`Kind::Locked`]. Else 60 s.
    #[must_use]
    pub fn lock_deadline(mut self, deadline: Duration) -> Self {
        self.lock_deadline = deadline;
        self
    }

    /// How long to wait for another driver before giving up with [`Kind::Busy`]. Else 60 s.
    #[must_use]
    pub fn lease_wait(mut self, wait: Duration) -> Self {
        self.lease_wait = wait;
        self
    }

    /// How long the lease of a driver that was killed or cut off lasts: for so long nobody else drives. Else 15 s.
    ///
    /// A driver renews it three times in that time; one whose heartbeat is late by all of it has lost the lease,
    /// and what it has under way is rolled back. Less than 300 ms is taken as 300 ms.
    #[must_use]
    pub fn lease_time(mut self, time: Duration) -> Self {
        self.lease_time = time.max(Duration::from_millis(300));
        self
    }

    /// How fast backfills go.
    #[must_use]
    pub fn backfill(mut self, policy: BackfillPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// One more reason for batches to pause, beside those of [`BackfillPolicy`].
    #[must_use]
    pub fn throttle(mut self, throttle: impl Throttle + 'static) -> Self {
        self.throttles.push(Arc::new(throttle));
        self
    }

    /// A replica that [`BackfillPolicy::max_lag`] is about, beside those that the server itself shows: managed databases
    /// hide them, and those behind other replicas are seen by nobody. It is asked how far it has replayed. `name` is
    /// what reasons call it.
    ///
    /// One that cannot be reached holds the batches back, and says so.
    ///
    /// Before a drop it is asked, too, for statements that still use what goes.
    #[must_use]
    pub fn replica<T>(mut self, name: impl Into<String>, config: Config, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + Sync,
        T::TlsConnect: Send + Sync,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        self.replicas.push(Replica { name: name.into(), connector: Connector::config(config, tls) });
        self
    }

    /// How the migration of that name fills its column, where it says [`computed_from`](crate::AddColumn::computed_from):
    /// a function from a row, with those columns in it, to the value; `None` leaves the column null.
    ///
    /// It is called for up to 16 rows at once, outside any transaction, so it may take its time. A row that changed
    /// meanwhile is not overwritten but computed again. It may be called again for a row whose batch was rolled back.
    /// The value must be of the Rust type that stands for the column's type (or for the type below its domain).
    ///
    /// ```no_run
    /// # use phasewise::{AddColumn, Migration, Migrations, Migrator, migrations};
    /// # async fn decrypt(bytes: Vec<u8>) -> Result<String, std::io::Error> { Ok(String::new()) }
    /// # fn example(pool: deadpool_postgres::Pool) -> Migrator {
    /// static MIGRATIONS: Migrations = migrations![
    ///     Migration::new("20261125_users_email", AddColumn::new("users", "email", "text").computed_from(&["cipher"]))
    ///         .not_deployed(),
    /// ];
    ///
    /// Migrator::new(pool, &MIGRATIONS).compute("20261125_users_email", |row| async move {
    ///     match row.get::<_, Option<Vec<u8>>>("cipher") {
    ///         Some(cipher) => decrypt(cipher).await.map(Some),
    ///         None => Ok(None),
    ///     }
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn compute<F, T, E>(
        mut self,
        migration: impl Into<String>,
        function: impl Fn(tokio_postgres::Row) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = std::result::Result<Option<T>, E>> + Send + 'static,
        T: ToSql + Send + Sync + 'static,
        E: fmt::Display + Send + 'static,
    {
        self.functions.insert(migration.into(), backfill::function(function));
        self
    }

    /// How often a started instance says that it is alive. Else every 10 s.
    ///
    /// Less than 10 ms is taken as 10 ms.
    #[must_use]
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = every.max(Duration::from_millis(10));
        self
    }

    /// How long after its last heartbeat an instance counts as live, by the database's clock. Else 45 s; at least two
    /// heartbeats.
    ///
    /// One that finds itself expired is not [current](Schema::is_current) until it has registered again.
    #[must_use]
    pub fn expiry(mut self, time: Duration) -> Self {
        self.expiry = time;
        self
    }

    /// How long an expired instance still holds gates shut. Else 45 s.
    ///
    /// It may have been cut off from the database for a moment, or stopped, and still be serving.
    #[must_use]
    pub fn grace(mut self, time: Duration) -> Self {
        self.grace = time;
        self
    }

    /// How long the whole fleet must have spoken a release before the gate that waits for it opens. Else 10 s.
    ///
    /// It bridges the moment in which an old release is between two of its instances.
    #[must_use]
    pub fn settle(mut self, time: Duration) -> Self {
        self.settle = time;
        self
    }

    /// How long [`start`](Migrator::start) waits for other instances, a settle time, or a backfill that this build
    /// needs and another one drives, before it refuses to serve. Else 60 s. What it drives itself takes as long as it
    /// takes.
    #[must_use]
    pub fn start_wait(mut self, wait: Duration) -> Self {
        self.start_wait = wait;
        self
    }

    /// How often a started instance looks whether there is something to drive. Else every 5 s, and never less often than
    /// three times in the [lease time](Migrator::lease_time).
    ///
    /// Less than 10 ms is taken as 10 ms.
    #[must_use]
    pub fn poll(mut self, every: Duration) -> Self {
        self.poll = every.max(Duration::from_millis(10));
        self
    }

    /// Whether a started instance drives migrations in the background, when no other one does. Else it does.
    ///
    /// `false` is for applications that leave it to jobs which call [`run`](Migrator::run).
    #[must_use]
    pub fn drive_in_background(mut self, drives: bool) -> Self {
        self.drives = drives;
        self
    }

    /// Whether [`start`](Migrator::start) brings the schema forward itself. Else it does.
    ///
    /// `false`, with [`drive_in_background(false)`](Migrator::drive_in_background), is for applications whose role may not
    /// change the schema, or whose connections go through a pooler in transaction mode: `start` waits, as long as
    /// [`start_wait`](Migrator::start_wait) says, until a job has brought the schema to where this build may serve.
    #[must_use]
    pub fn drive_at_start(mut self, drives: bool) -> Self {
        self.drives_at_start = drives;
        self
    }

    /// Takes the database to be fresh: nothing waits for gates or soaks. For tests, and for databases that
    /// nobody uses yet.
    ///
    /// As on a database that is fresh, a migration still stops before a phase that this build's own release could
    /// not live in ([`run_to`](Migrator::run_to) and [`confirm`](Migrator::confirm) go beyond), and before one that
    /// a registered instance could not.
    #[must_use]
    pub fn assume_fresh(mut self) -> Self {
        self.assume_fresh = true;
        self
    }

    pub(super) fn tell(&self, event: &Event<'_>) {
        tell(self.observer.as_deref(), event);
    }

    pub(super) fn entry(&self, name: &str) -> Result<&'static Entry> {
        self.migrations.get(name).ok_or_else(|| {
            let known: Vec<_> = self.migrations.iter().map(Entry::name).collect();
            Error::new(
                Kind::Unknown,
                format!("there is no migration {name} in this build: it has {}", or_none(&known)),
            )
        })
    }
}

pub(super) fn or_none(names: &[impl AsRef<str>]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
    }
}

/// The index of a phase of `entry`.
pub(super) fn phase_of(entry: &Entry, phase: &str) -> Result<usize> {
    entry.phases().iter().position(|info| info.name == phase).ok_or_else(|| {
        let known: Vec<_> = entry.phases().iter().map(|info| info.name).collect();
        Error::new(
            Kind::Unknown,
            format!("migration {} has no phase {phase}: it has {}", entry.name(), known.join(", ")),
        )
    })
}

impl Migrator {
    /// Drives what is open, and stops at closed gates and soaks. Registers nobody: for jobs and tests.
    ///
    /// On a fresh database, that is one where this run made the ledger and no table that a migration touches was
    /// there yet, gates and soaks are open, up to the release that this build speaks.
    ///
    /// # Errors
    ///
    /// A migration that fails stands still, and holds up those that touch the same; the others go on. The first such
    /// error is returned, with the [migration's name](Error::migration); the next run resumes there. What concerns them
    /// all, such as a broken connection, ends the run.
    ///
    /// * [`Kind::Definition`], [`Kind::Missing`], [`Kind::Conflict`], [`Kind::Unsupported`], [`Kind::Permission`]:
    ///   refused at planning, before the first phase.
    /// * [`Kind::Locked`]: no lock until the deadline; the message names the blockers. [`Kind::Busy`]: another driver
    ///   kept the lease. [`Kind::LeaseLost`]: another one has taken over.
    /// * [`Kind::Backfill`]: a row that the expression fails on, or rows that never converge. [`Kind::Step`]: Postgres
    ///   refused another statement of a step, because of the rows or of the SQL.
    /// * [`Kind::OutsideWindow`]: an instance joined at that moment which the next phase does not allow.
    /// * [`Kind::Changed`]: a migration that has begun was edited. [`Kind::LedgerTooNew`], [`Kind::LedgerDamaged`].
    /// * [`Kind::ServerTooOld`], [`Kind::Connection`], [`Kind::Database`].
    pub async fn run(&self) -> Result<Report> {
        self.drive(Goal::Open).await
    }

    /// The same, but `name` goes no further than `phase`, and migrations after it are left alone. Lifts a hold on
    /// it, if `phase` is ahead.
    ///
    /// # Errors
    ///
    /// Like [`run`](Migrator::run); [`Kind::Unknown`] for a name or phase that this build does not have, and for a
    /// phase that lies behind.
    pub async fn run_to(&self, name: &str, phase: &str) -> Result<Report> {
        let last = phase_of(self.entry(name)?, phase)?;
        self.drive(Goal::To(name, last)).await
    }

    /// Where every migration stands. Reads only, and works before there is a ledger.
    ///
    /// # Errors
    ///
    /// [`Kind::Connection`], [`Kind::ServerTooOld`], [`Kind::LedgerTooNew`], [`Kind::LedgerDamaged`].
    pub async fn status(&self) -> Result<Status> {
        self.standing().await
    }

    /// The migrations of this build that are not in their last phase.
    ///
    /// # Errors
    ///
    /// Like [`status`](Migrator::status).
    pub async fn pending(&self) -> Result<Vec<MigrationStatus>> {
        let mut migrations = self.status().await?.migrations;
        migrations.retain(|found| !matches!(found.state, State::Applied | State::Unknown));
        Ok(migrations)
    }

    /// The migrations that are in their last phase.
    ///
    /// # Errors
    ///
    /// Like [`status`](Migrator::status).
    pub async fn applied(&self) -> Result<Vec<MigrationStatus>> {
        let mut migrations = self.status().await?.migrations;
        migrations.retain(|found| found.state == State::Applied);
        Ok(migrations)
    }

    /// What is still to be done, as data. Reads only.
    ///
    /// # Errors
    ///
    /// Like [`status`](Migrator::status), and whatever the planning refuses.
    pub async fn plan(&self) -> Result<Plan> {
        self.make_plan().await
    }

    /// Takes a migration back, phase by phase, and holds it there until [`resume`](Migrator::resume) or
    /// [`run_to`](Migrator::run_to). Confirmations from the phase that it ends in on are withdrawn,
    /// and what was [acknowledged](Migrator::acknowledge).
    ///
    /// # Errors
    ///
    /// [`Kind::Irreversible`] and [`Kind::OutsideWindow`] before anything is touched. [`Kind::GateClosed`] for a migration
    /// that has not begun, and [`Kind::Changed`] for one that was edited since. [`Kind::HeldBack`] where a later
    /// migration that touches the same has begun: that one is rolled back first. So is one like that which this build does not
    /// list, and which the ledger saw first after this one. [`Kind::Unknown`] for a name
    /// or phase that this build does not have, and for a phase that lies ahead; while it goes back, like
    /// [`run`](Migrator::run).
    pub async fn rollback(&self, name: &str, to: impl Into<To<'_>>) -> Result<Report> {
        self.take_back(name, to.into()).await
    }

    /// Vouches that the deploy which `phase` waits for is out, for clients that do not register.
    ///
    /// # Errors
    ///
    /// [`Kind::GateClosed`] if `phase` is no deploy phase, is not reached yet, or if a registered instance speaks
    /// less. [`Kind::Changed`] for a migration that was edited after it had begun. [`Kind::Unknown`] for a name or phase
    /// that this build does not have.
    pub async fn confirm(&self, name: &str, phase: &str) -> Result<()> {
        self.vouch(name, phase).await
    }

    /// What was dropped and can still be brought back, oldest first. Reads only.
    ///
    /// # Errors
    ///
    /// Like [`status`](Migrator::status).
    pub async fn archives(&self) -> Result<Vec<ArchiveStatus>> {
        let look = self.look().await?;
        self.list_archives(&look).await
    }

    /// Drops the archive of a migration for good: a dropped column's values, or the table that was set aside. From then on
    /// the drop cannot be rolled back. Takes `ACCESS EXCLUSIVE` on the archive, which nobody uses.
    ///
    /// # Errors
    ///
    /// [`Kind::Missing`] where the migration has no archive. [`Kind::GateClosed`] while its phase is under way, forward or
    /// back. [`Kind::Unknown`] for a name that neither this build nor the ledger has. [`Kind::Step`] where something was
    /// made since that depends on the archive; else like [`rollback`](Migrator::rollback).
    pub async fn purge_archive(&self, name: &str) -> Result<()> {
        self.purge(name).await
    }

    /// Says that a reference to what a migration drops does not matter: `object` is its
    /// [name](crate::Reference::object), as `status()` and `plan()` list it. The gate before the drop opens once each is
    /// gone or acknowledged. A rollback of the migration withdraws it.
    ///
    /// # Errors
    ///
    /// [`Kind::Unknown`] if nothing of that name is found now; the message lists what is. [`Kind::GateClosed`] for one that
    /// Postgres would refuse the drop for, such as a view, and for a migration that has not begun. [`Kind::Changed`] for a
    /// migration that was edited after it had begun.
    pub async fn acknowledge(&self, name: &str, object: &str) -> Result<()> {
        self.excuse(name, object).await
    }

    /// Holds a migration where it stands. A backfill under way, in whatever process, stops after its batch and waits
    /// for [`resume`](Migrator::resume); it gives way to a rollback, and to an instance that cannot start
    /// without the lease.
    ///
    /// # Errors
    ///
    /// [`Kind::Unknown`], [`Kind::Connection`].
    pub async fn pause(&self, name: &str) -> Result<()> {
        self.hold(name, true).await
    }

    /// Lifts a hold.
    ///
    /// # Errors
    ///
    /// [`Kind::Unknown`], [`Kind::Connection`].
    pub async fn resume(&self, name: &str) -> Result<()> {
        self.hold(name, false).await
    }

    /// Halves the speed of a migration's backfills, in whatever process they run, as of the next batch: the pause
    /// doubles, and they rest as long as they work. Once more, and it is a quarter.
    ///
    /// # Errors
    ///
    /// [`Kind::Unknown`]; [`Kind::GateClosed`] where the migration has not begun; [`Kind::Connection`].
    pub async fn slower(&self, name: &str) -> Result<()> {
        self.set_pace(name, 0.5, None).await
    }

    /// Doubles the speed of a migration's backfills: undoes one [`slower`](Migrator::slower), or halves the pause that
    /// the policy sets. It does not make batches larger.
    ///
    /// # Errors
    ///
    /// Like [`slower`](Migrator::slower).
    pub async fn faster(&self, name: &str) -> Result<()> {
        self.set_pace(name, 2.0, None).await
    }

    /// Sets how long a batch of a migration's backfills should take, in place of [`BackfillPolicy::target`], as of the
    /// next batch. Less than 1 ms is taken as 1 ms.
    ///
    /// # Errors
    ///
    /// Like [`slower`](Migrator::slower).
    pub async fn set_batch_target(&self, name: &str, target: Duration) -> Result<()> {
        self.set_pace(name, 1.0, Some(target.max(Duration::from_millis(1)))).await
    }

    /// Takes this build's definition of a migration that has begun as the one that was meant. Nothing is done
    /// again: what the phases so far did must be what the new definition says.
    ///
    /// # Errors
    ///
    /// [`Kind::Changed`] if its phases up to where it stands have other names. [`Kind::GateClosed`] for a migration that
    /// has not begun: it may be edited freely. [`Kind::Unknown`] for a name that this build does not have.
    pub async fn dangerous_accept_changed(&self, name: &str) -> Result<()> {
        self.accept(name).await
    }

    /// Leaves a service out of account that is no more: whatever it listed, gates no longer wait for an instance of it.
    /// Until it registers again.
    ///
    /// # Errors
    ///
    /// [`Kind::GateClosed`] while instances of it are registered. [`Kind::Unknown`] for one that never was.
    pub async fn forget_service(&self, service: &str) -> Result<()> {
        self.forget(service).await
    }

    /// Joins the fleet, if this build may serve beside the schema as it stands; and drives migrations in the background
    /// from then on.
    ///
    /// First it brings the schema as far forward as the gates allow, counting itself: all the way for a single instance or
    /// on a fresh database. Backfills, index builds and checks of tables of more than 8 MiB, and index builds
    /// that would wait for a transaction, are left to the background, unless this build needs them: it does where its release may not run before them, and where they
    /// belong to a change without releases that its code counts on, which is each but an [`AddIndex`](crate::AddIndex)
    /// that is not unique ([`Change::is_optional`](crate::Change::is_optional)). Where it may not serve yet, because of
    /// other instances, of another driver, or of a backfill under way, it waits for as long as
    /// [`start_wait`](Migrator::start_wait) says.
    ///
    /// A lock that cannot be had, a backfill that cannot end, a step that Postgres refuses, a right that this role does
    /// not have, another driver, or what came in the way of a migration after it had begun (a view of the column) does not
    /// keep an instance from serving whose code does not need that migration to have come further: [`Report::failed`] says
    /// so, and the background goes on trying. A build that does not list a migration of its tables which has begun is release 0 of it,
    /// unless it names it as [retired](Migrations::retired); one that has nothing to do with its tables does not care.
    ///
    /// # Errors
    ///
    /// [`Kind::OutsideWindow`] if this build may not run beside the schema as it stands: the message names the migration,
    /// the phase, who is in the way, and which release to deploy first. Else like [`run`](Migrator::run).
    pub async fn start(&self) -> Result<Schema> {
        self.join().await
    }
}
