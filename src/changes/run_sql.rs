//! `RunSql`.

use std::fmt::Write as _;
use std::marker::PhantomData;

use crate::change::{Change, Touches};
use crate::error::{Error, Kind, Result};
use crate::ident::{Ident, TableName, check_names};
use crate::phase::Context;
use crate::phases::run_sql::{Decided, Run, Sent, SqlSpec, Undecided, Undo, check_statements};

/// Runs SQL of your own, one statement at a time.
///
/// | # | phase | enter | gate | window |
/// |---|---|---|---|---|
/// | 1 | `Run` | the statements, each in a transaction of its own | – | 0 |
///
/// **Locks:** whatever your statements take: phasewise knows no more of them than you say. Each may wait for locks, and
/// may take, as long as the stall budget allows (else 1 s), and is tried again until the lock deadline;
/// [`long_running`](Self::long_running) lifts the limit on the time that it may take.
///
/// **Session settings do not last:** what a statement sets (`SET`, `SET ROLE`, `set_config(…, false)`) is put back before
/// the next one.
///
/// **Rollback:** your own statements, or the reason why there are none. One of the two must be given. Where a statement
/// failed, those after it never ran: if none ran, nothing is undone (be it irreversible or not), and if some did, the
/// rollback must have one statement for each of yours, in reverse order, and undoes only those that ran; else it is
/// refused.
///
/// Unless it says what it touches, all later migrations wait for it, and it for all earlier ones.
///
/// ```
/// use phasewise::{Migration, Migrations, RunSql, migrations};
///
/// static MIGRATIONS: Migrations = migrations![
///     Migration::new(
///         "20261118_citext",
///         RunSql::new(&["create extension citext"])
///             .rollback(&["drop extension citext"])
///             .done_when("select exists (select from pg_extension where extname = 'citext')")
///             .touches(&[]),
///     ),
///     Migration::new(
///         "20261119_purge",
///         RunSql::new(&["delete from sessions where expires_at < now()"])
///             .long_running()
///             .irreversible("expired sessions are of no use to anyone")
///             .touches(&["sessions"]),
///     ),
/// ];
/// # assert_eq!(MIGRATIONS.iter().len(), 2);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RunSql<U = Undecided> {
    spec: SqlSpec,
    tables: Option<&'static [&'static str]>,
    columns: Option<(TableName, &'static [&'static str])>,
    undo: PhantomData<U>,
}

impl RunSql {
    /// These statements, in order; each is sent alone.
    ///
    /// # Panics
    ///
    /// On an empty list, and on an entry that is empty, holds a second statement, or begins or ends a transaction: a
    /// compile error in a definition.
    #[must_use]
    pub const fn new(statements: &'static [&'static str]) -> Self {
        check_statements(statements);
        Self {
            spec: SqlSpec { statements, undo: Undo::Undecided, sent: Sent::Transaction, done_when: None },
            tables: None,
            columns: None,
            undo: PhantomData,
        }
    }

    /// The statements that undo it, in the order in which they are sent: in the same way, and only for what ran.
    #[must_use]
    pub const fn rollback(mut self, statements: &'static [&'static str]) -> RunSql<Decided> {
        check_statements(statements);
        self.spec.undo = Undo::Statements(statements);
        self.decided()
    }

    /// It cannot be undone. `reason` completes "this cannot be undone: …", and is what a rollback is refused with.
    #[must_use]
    pub const fn irreversible(mut self, reason: &'static str) -> RunSql<Decided> {
        assert!(
            !reason.is_empty(),
            "a reason is empty: say why this cannot be undone, or write .rollback(&[…])"
        );
        self.spec.undo = Undo::Irreversible(reason);
        self.decided()
    }

    const fn decided(self) -> RunSql<Decided> {
        RunSql { spec: self.spec, tables: self.tables, columns: self.columns, undo: PhantomData }
    }
}

impl<U> RunSql<U> {
    /// The statements may take long: no limit on their time, only on their wait for locks. Not for statements that
    /// block clients meanwhile.
    #[must_use]
    pub const fn long_running(mut self) -> Self {
        self.spec.sent = Sent::Long;
        self
    }

    /// The statement refuses to run in a transaction block, as `VACUUM` does. Since the ledger cannot be written
    /// together with it, it needs [`done_when`](Self::done_when), and at most one statement to undo it. There is no limit on its time. Its wait for locks is
    /// limited by the stall budget, and tried again; but one with the word `concurrently` waits as long as it must, since
    /// a timeout would leave an invalid index behind.
    #[must_use]
    pub const fn outside_transaction(mut self) -> Self {
        self.spec.sent = Sent::Outside;
        self
    }

    /// A query for one boolean: whether the statement's effect is there already. It is asked before the statement is
    /// sent, and again when a run that was cut off is resumed. Without it, the ledger tells.
    ///
    /// # Panics
    ///
    /// With several statements, since one answer cannot tell which of them are done: a compile error in a definition.
    #[must_use]
    pub const fn done_when(mut self, query: &'static str) -> Self {
        assert!(
            self.spec.statements.len() == 1,
            ".done_when(…) is about one statement, but there are several: write one RunSql for each"
        );
        check_statements(&[query]);
        self.spec.done_when = Some(query);
        self
    }

    /// It touches these tables and no others; none at all with `&[]`. So migrations of other tables need not wait.
    /// Views and partitions may be among them, and tables that the statements themselves create.
    #[must_use]
    pub const fn touches(mut self, tables: &'static [&'static str]) -> Self {
        let mut i = 0;
        while i < tables.len() {
            let _ = TableName::new(tables[i]);
            i += 1;
        }
        self.tables = Some(tables);
        self
    }

    /// It touches these columns of `table`, and beyond them only what [`touches`](Self::touches) says.
    #[must_use]
    pub const fn touches_columns(mut self, table: &'static str, columns: &'static [&'static str]) -> Self {
        check_names(columns);
        self.columns = Some((TableName::new(table), columns));
        self
    }
}

impl Change for RunSql<Decided> {
    type Phases = (Run,);

    fn phases(&self) -> Self::Phases {
        (Run { spec: self.spec },)
    }

    fn definition(&self) -> String {
        let mut text = String::from("run sql");
        for statement in self.spec.statements {
            let _ = write!(text, "\n statement {statement}");
        }
        match self.spec.sent {
            Sent::Transaction => {}
            Sent::Long => text.push_str("\n long running"),
            Sent::Outside => text.push_str("\n outside transaction"),
        }
        match self.spec.undo {
            Undo::Statements(statements) => {
                for statement in statements {
                    let _ = write!(text, "\n rollback {statement}");
                }
            }
            Undo::Irreversible(reason) => {
                let _ = write!(text, "\n irreversible {reason}");
            }
            Undo::Undecided => {}
        }
        text
    }

    fn touches(&self) -> Touches {
        if self.tables.is_none() && self.columns.is_none() {
            return Touches::everything();
        }
        let tables = self.tables.unwrap_or_default().iter();
        let touches = tables.fold(Touches::nothing(), |touches, table| touches.table(TableName::new(table)));
        let touches = match self.columns {
            None => touches,
            Some((table, columns)) => {
                let columns: Vec<Ident> = columns.iter().map(|name| Ident::new(name)).collect();
                touches.columns(table, &columns)
            }
        };
        touches.unchecked()
    }

    fn check(&self, _: &Context<'_>) -> Result<()> {
        if self.spec.sent != Sent::Outside {
            return Ok(());
        }
        if let Undo::Statements([first, _, ..]) = self.spec.undo {
            return Err(Error::new(
                Kind::Definition,
                format!(
                    "the rollback that begins with \"{first}\" has several statements, and they are sent outside a transaction, so that nothing can tell which of them are done: write one statement, and one RunSql for each"
                ),
            ));
        }
        if self.spec.done_when.is_none() {
            return Err(Error::new(
                Kind::Definition,
                format!(
                    "\"{}\" is sent outside a transaction, so that the ledger cannot tell whether it was done: add .done_when(\"select …\")",
                    self.spec.statements[0]
                ),
            ));
        }
        Ok(())
    }
}
