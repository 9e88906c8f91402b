//! Steps: the statements of a phase, as data.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Postgres's table lock modes, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockMode {
    /// `SELECT` takes it.
    AccessShare,
    /// `SELECT … FOR UPDATE` takes it.
    RowShare,
    /// `INSERT`, `UPDATE`, `DELETE` take it.
    RowExclusive,
    /// `VALIDATE CONSTRAINT`, `CREATE INDEX CONCURRENTLY` and vacuum take it: blocks no client.
    ShareUpdateExclusive,
    /// Blocks writes.
    Share,
    /// Blocks writes; `ADD FOREIGN KEY` and `CREATE TRIGGER` take it.
    ShareRowExclusive,
    /// Blocks writes and row locks.
    Exclusive,
    /// Blocks everything, reads too.
    AccessExclusive,
}

impl LockMode {
    /// Whether plain reads wait for it.
    #[must_use]
    pub const fn blocks_reads(self) -> bool {
        matches!(self, Self::AccessExclusive)
    }

    /// Whether `INSERT`, `UPDATE` and `DELETE` wait for it.
    #[must_use]
    pub const fn blocks_writes(self) -> bool {
        matches!(self, Self::Share | Self::ShareRowExclusive | Self::Exclusive | Self::AccessExclusive)
    }

    /// The mode as `LOCK TABLE` writes it.
    #[must_use]
    pub const fn sql(self) -> &'static str {
        match self {
            Self::AccessShare => "ACCESS SHARE",
            Self::RowShare => "ROW SHARE",
            Self::RowExclusive => "ROW EXCLUSIVE",
            Self::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            Self::Share => "SHARE",
            Self::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Self::Exclusive => "EXCLUSIVE",
            Self::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sql())
    }
}

/// A lock that a step takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lock {
    /// The relation as SQL, qualified: `"public"."users"`.
    pub relation: String,
    /// The strongest mode that the step takes on it.
    pub mode: LockMode,
}

/// How the migrator finds out that a step is done already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Probe {
    /// A query that returns one boolean: whether the step's effect is there, definition and all.
    Sql(String),
    /// The ledger: the step is noted there in its own transaction. For statements whose effect cannot be seen in
    /// the catalog.
    Ledger,
    /// Nothing: running it again changes nothing (batches that find no row, a saved definition).
    Repeatable,
}

/// One statement, or one batch loop, with the locks it takes and the way to tell whether it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it does, in a few words: `add column "full_name"`.
    pub summary: String,
    /// What is sent.
    pub action: Action,
    /// Every lock on a table that it takes, strongest mode per table. The ledger's own tables are left out.
    pub locks: Vec<Lock>,
    /// Whether `locks` is the whole truth. Not for SQL that phasewise did not write: then nobody knows.
    pub locks_known: bool,
    /// Whether it reads a whole table.
    pub scans: bool,
    /// How to tell that it is done.
    pub probe: Probe,
}

/// What a step sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Action {
    /// Statements of one short transaction, under lock and statement timeouts. Usually one; several only where
    /// atomicity needs them.
    Transaction(Vec<String>),
    /// A statement that may take long under weak locks, in a transaction without timeouts: `VALIDATE CONSTRAINT`.
    Long(String),
    /// A statement that refuses to run in a transaction block.
    Autocommit(String),
    /// `CREATE INDEX CONCURRENTLY`, fenced by name.
    BuildIndex(BuildIndex),
    /// `DROP INDEX CONCURRENTLY`, after a fenced rename.
    DropIndex(DropIndex),
    /// A loop of small transactions over a table.
    Batches(Batches),
    /// Keeps a definition in the ledger, under a key, until the migration is rolled back past this phase. What is
    /// there already is kept.
    Save {
        /// The key.
        key: String,
        /// What a rollback needs.
        value: serde_json::Value,
    },
}

/// An index to build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildIndex {
    /// Schema of table and index.
    pub schema: String,
    /// The table: an ordinary one, or a partition that holds rows.
    pub table: String,
    /// The index's final name.
    pub name: String,
    /// `UNIQUE`.
    pub unique: bool,
    /// What follows `USING `, exactly as `pg_get_indexdef` writes it, so that definitions can be compared.
    pub tail: String,
}

/// An index to drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropIndex {
    /// Its schema.
    pub schema: String,
    /// The index.
    pub name: String,
}

/// A loop over the rows of a table, in small transactions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batches {
    /// Schema of the table.
    pub schema: String,
    /// The table whose rows are walked; a partitioned one is walked partition by partition.
    pub table: String,
    /// What is done to the rows.
    pub work: Work,
    /// Which rows need it: a predicate over the alias `t`.
    pub condition: String,
    /// Rows that are wrong when the loop has ended: a predicate over `t`, checked by one snapshot. The loop is
    /// repeated while there are any, and gives up with their keys after a few passes.
    pub verify: String,
    /// Columns that name a row in a report; empty where the table has no key.
    pub keys: Vec<String>,
    /// What `phasewise.backfill` says in the batch's transaction, so that sync triggers know which side wins.
    pub marker: Option<Marker>,
}

/// What a batch does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Work {
    /// `UPDATE … SET set`.
    Update {
        /// The assignments, over the alias `t`.
        set: String,
        /// `FROM`, where another table is joined.
        from: Option<String>,
    },
    /// `INSERT INTO into SELECT select … ON CONFLICT DO NOTHING`.
    Copy {
        /// The table copied into, with its columns: `"phasewise"."archive_x" ("id", "value")`.
        into: String,
        /// The select list, over the alias `t`.
        select: String,
    },
    /// `UPDATE … SET column = …`, with values that a function of the application computes from the rows:
    /// [`Migrator::compute`](crate::Migrator::compute).
    Compute {
        /// The column that is filled.
        column: String,
        /// The columns that the function is given.
        inputs: Vec<String>,
    },
}

/// The side that wins while batches run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Marker {
    /// The source: values flow to the target.
    Forward,
    /// The target: values flow back.
    Backward,
}

impl Marker {
    /// The setting's value.
    #[must_use]
    pub const fn value(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
        }
    }
}

impl Batches {
    /// The statement for the rows of `relation` (SQL) for which `range` (a predicate over `t`) holds.
    #[must_use]
    pub fn sql(&self, relation: &str, range: &str) -> String {
        let condition = &self.condition;
        match &self.work {
            Work::Update { set, from } => {
                let from = from.as_ref().map(|from| format!(" FROM {from}")).unwrap_or_default();
                format!("UPDATE ONLY {relation} AS t SET {set}{from} WHERE {range} AND ({condition})")
            }
            Work::Copy { into, select } => format!(
                "INSERT INTO {into} SELECT {select} FROM ONLY {relation} AS t WHERE {range} AND ({condition}) ON CONFLICT DO NOTHING"
            ),
            Work::Compute { column, inputs } => {
                let inputs = crate::steps::list(inputs);
                format!(
                    "UPDATE ONLY {relation} AS t SET {} = <computed from {inputs}> WHERE {range} AND ({condition})",
                    crate::ident::quote(column)
                )
            }
        }
    }

    /// The same without the rows that others have locked, which are waited for otherwise.
    pub(crate) fn sql_skipping_locked(&self, relation: &str, range: &str) -> String {
        let condition = &self.condition;
        let Work::Update { set, from } = &self.work else { return self.sql(relation, range) };
        let from = from.as_ref().map(|from| format!(", {from}")).unwrap_or_default();
        // FOR NO KEY UPDATE is what the update itself takes: rows that a foreign key's check holds are not left out.
        format!(
            "WITH free AS MATERIALIZED (SELECT t.ctid AS tuple FROM ONLY {relation} AS t{from} WHERE {range} AND ({condition}) FOR NO KEY UPDATE OF t SKIP LOCKED) \
             UPDATE ONLY {relation} AS t SET {set} FROM free{from} WHERE t.ctid = free.tuple AND ({condition})"
        )
    }
}

impl Step {
    /// A step with `action`, without locks, a scan, or a probe.
    #[must_use]
    pub fn new(summary: impl Into<String>, action: Action) -> Self {
        Self {
            summary: summary.into(),
            action,
            locks: Vec::new(),
            locks_known: true,
            scans: false,
            probe: Probe::Ledger,
        }
    }

    /// One statement in a short transaction.
    #[must_use]
    pub fn sql(summary: impl Into<String>, statement: impl Into<String>) -> Self {
        Self::new(summary, Action::Transaction(vec![statement.into()]))
    }

    /// A long statement under weak locks.
    #[must_use]
    pub fn long(summary: impl Into<String>, statement: impl Into<String>) -> Self {
        Self::new(summary, Action::Long(statement.into()))
    }

    /// A batch loop, with its lock on the table.
    #[must_use]
    pub fn batches(summary: impl Into<String>, batches: Batches) -> Self {
        let relation =
            format!("{}.{}", crate::ident::quote(&batches.schema), crate::ident::quote(&batches.table));
        let mode = match batches.work {
            Work::Update { .. } | Work::Compute { .. } => LockMode::RowExclusive,
            Work::Copy { .. } => LockMode::AccessShare,
        };
        Self::new(summary, Action::Batches(batches)).locks(relation, mode).scanning().probe(Probe::Repeatable)
    }

    /// Keeps `value` in the ledger under `key`.
    #[must_use]
    pub fn save(key: impl Into<String>, value: serde_json::Value) -> Self {
        let key = key.into();
        Self::new(format!("save {key}"), Action::Save { key, value }).probe(Probe::Repeatable)
    }

    /// Declares a lock on `relation` (SQL, qualified).
    #[must_use]
    pub fn locks(mut self, relation: impl Into<String>, mode: LockMode) -> Self {
        self.locks.push(Lock { relation: relation.into(), mode });
        self
    }

    /// Declares that its locks are not known: SQL that a user wrote.
    #[must_use]
    pub fn locks_unknown(mut self) -> Self {
        self.locks_known = false;
        self
    }

    /// Declares that a whole table is read.
    #[must_use]
    pub fn scanning(mut self) -> Self {
        self.scans = true;
        self
    }

    /// Sets the probe.
    #[must_use]
    pub fn probe(mut self, probe: Probe) -> Self {
        self.probe = probe;
        self
    }

    /// The same with a probe that is a query for one boolean.
    #[must_use]
    pub fn done_when(self, query: impl Into<String>) -> Self {
        self.probe(Probe::Sql(query.into()))
    }

    /// Whether what it sends runs in a transaction block.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        !matches!(self.action, Action::Autocommit(_) | Action::BuildIndex(_) | Action::DropIndex(_))
    }

    /// The SQL as a person would read it; a batch loop as its statement over `{range}`.
    #[must_use]
    pub fn display_sql(&self) -> Vec<String> {
        use crate::ident::quote;
        match &self.action {
            Action::Transaction(statements) => statements.clone(),
            Action::Long(statement) | Action::Autocommit(statement) => vec![statement.clone()],
            Action::BuildIndex(build) => vec![format!(
                "CREATE {}INDEX CONCURRENTLY {} ON {}.{} USING {}",
                if build.unique { "UNIQUE " } else { "" },
                quote(&build.name),
                quote(&build.schema),
                quote(&build.table),
                build.tail
            )],
            Action::DropIndex(drop) => {
                vec![format!("DROP INDEX CONCURRENTLY {}.{}", quote(&drop.schema), quote(&drop.name))]
            }
            Action::Batches(batches) => {
                vec![batches.sql(&format!("{}.{}", quote(&batches.schema), quote(&batches.table)), "{range}")]
            }
            Action::Save { .. } => Vec::new(),
        }
    }
}
