//! Triggers that keep two columns of a table equal, and their functions.

use super::{on_all, probe};
use crate::catalog::Table;
use crate::ident::{hashed, literal, quote};
use crate::step::{Action, LockMode, Step};

/// The two triggers, with what is particular to the columns as SQL.
pub(crate) struct Sync<'a> {
    pub(crate) table: &'a Table,
    pub(crate) ledger_schema: &'a str,
    /// The schema that the expressions were written for.
    pub(crate) schema: &'a str,
    pub(crate) source: &'a str,
    pub(crate) target: &'a str,
    /// Whether the functions carry settings of their own. They are not free, so only where
    /// an expression could mean something else under the client's settings.
    pub(crate) fixed_settings: bool,
    /// The type of the variable `pw_up`: an assignment to it fails on a value that does not fit, where a cast
    /// would cut it.
    pub(crate) declared: String,
    pub(crate) insert: String,
    pub(crate) update: String,
    pub(crate) when: String,
}

impl Sync<'_> {
    /// Creates functions and triggers.
    pub(crate) fn install(&self) -> Vec<Step> {
        let insert = format!("DECLARE\n  pw_up {};\nBEGIN\n{}\nEND", self.declared, self.insert);
        let update = format!("BEGIN\n{}\nEND", self.update);
        vec![
            self.function("insert", &insert),
            self.function("update", &update),
            // An update that moves a row to another partition ends as an insert. Without the update trigger that
            // insert would look like one of the new release, and the old release's value would be lost.
            self.trigger("update", "UPDATE", &format!(" WHEN ({})", self.when)),
            self.trigger("insert", "INSERT", ""),
        ]
    }

    fn function(&self, event: &str, body: &str) -> Step {
        let (schema, name) = (self.ledger_schema, function(self.table, self.source, self.target, event));
        let mut settings = String::new();
        if self.fixed_settings {
            settings = format!(
                " SET search_path = {}, pg_temp SET \"TimeZone\" = 'UTC' SET \"DateStyle\" = 'ISO, MDY'",
                quote(self.schema)
            );
        }
        let sql = format!(
            "CREATE OR REPLACE FUNCTION {}.{}() RETURNS trigger LANGUAGE plpgsql{settings} AS {}",
            quote(schema),
            quote(&name),
            literal(body)
        );
        let there = format!(
            "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = {} AND p.proname = {} AND p.prosrc = {} AND (p.proconfig IS NOT NULL) = {})",
            literal(schema),
            literal(&name),
            literal(body),
            self.fixed_settings
        );
        let revoke = format!("REVOKE ALL ON FUNCTION {}.{}() FROM PUBLIC", quote(schema), quote(&name));
        Step::new(format!("create the sync function for {event}"), Action::Transaction(vec![sql, revoke]))
            .done_when(there)
    }

    fn trigger(&self, event: &str, sql_event: &str, when: &str) -> Step {
        let name = trigger(self.source, self.target, event);
        let sql = format!(
            "CREATE TRIGGER {} BEFORE {sql_event} ON {} FOR EACH ROW{when} EXECUTE FUNCTION {}.{}()",
            quote(&name),
            self.table.sql(),
            quote(self.ledger_schema),
            quote(&function(self.table, self.source, self.target, event))
        );
        on_all(
            Step::sql(format!("create the sync trigger for {event}"), sql),
            self.table,
            LockMode::ShareRowExclusive,
        )
        .done_when(trigger_exists(self.table, &name))
    }
}

/// Drops triggers, then functions.
pub(crate) fn remove(table: &Table, ledger_schema: &str, source: &str, target: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    // The other way round than they were made, for the same reason.
    for event in ["insert", "update"] {
        let name = trigger(source, target, event);
        let sql = format!("DROP TRIGGER {} ON {}", quote(&name), table.sql());
        steps.push(
            on_all(
                Step::sql(format!("drop the sync trigger for {event}"), sql),
                table,
                LockMode::AccessExclusive,
            )
            .done_when(probe::not(&trigger_exists(table, &name))),
        );
    }
    for event in ["update", "insert"] {
        let name = function(table, source, target, event);
        let sql = format!("DROP FUNCTION {}.{}()", quote(ledger_schema), quote(&name));
        let there = format!(
            "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = {} AND p.proname = {})",
            literal(ledger_schema),
            literal(&name)
        );
        steps.push(
            Step::sql(format!("drop the sync function for {event}"), sql).done_when(probe::not(&there)),
        );
    }
    steps
}

/// Triggers of one kind fire in the order of their names: this one after those of the user's, so that it sees
/// what they made of the row.
fn trigger(source: &str, target: &str, event: &str) -> String {
    hashed(&format!("~phasewise_{event}_{source}_{target}"))
}

fn function(table: &Table, source: &str, target: &str, event: &str) -> String {
    hashed(&format!("sync_{event}_{}.{}.{source}.{target}", table.schema, table.name))
}

fn trigger_exists(table: &Table, name: &str) -> String {
    format!(
        "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_trigger t WHERE t.tgrelid = pg_catalog.to_regclass({}) AND t.tgname = {} AND t.tgenabled <> 'D')",
        literal(&table.sql()),
        literal(name)
    )
}
