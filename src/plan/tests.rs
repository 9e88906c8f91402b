//! Printed plans.

use super::*;
use crate::phase::{Gate, Window};
use crate::step::{Action, Batches, BuildIndex, DropIndex, LockMode, Marker, Probe, Work};

const USERS: &str = "\"public\".\"users\"";

fn info(name: &'static str, window: Window, gate: Gate) -> PhaseInfo {
    PhaseInfo { name, window, gate }
}

fn add() -> Step {
    Step::sql("add column \"full_name\"", format!("ALTER TABLE {USERS} ADD COLUMN \"full_name\" text"))
        .locks(USERS, LockMode::AccessExclusive)
}

fn drop_column(column: &str) -> Step {
    Step::sql(format!("drop column \"{column}\""), format!("ALTER TABLE {USERS} DROP COLUMN \"{column}\""))
        .locks(USERS, LockMode::AccessExclusive)
}

fn fill() -> Step {
    Step::batches(
        "copy \"name\" to \"full_name\" where they differ",
        Batches {
            schema: "public".to_owned(),
            table: "users".to_owned(),
            work: Work::Update { set: "\"full_name\" = (t.\"name\")".to_owned(), from: None },
            condition: "t.\"full_name\" IS DISTINCT FROM (t.\"name\") AND t.\"deleted at\" IS NULL"
                .to_owned(),
            verify: "false".to_owned(),
            keys: vec!["id".to_owned()],
            marker: Some(Marker::Forward),
        },
    )
}

fn index() -> Step {
    Step::new(
        "build index \"users_full_name_idx\"",
        Action::BuildIndex(BuildIndex {
            schema: "public".to_owned(),
            table: "users".to_owned(),
            name: "users_full_name_idx".to_owned(),
            unique: true,
            tail: "btree (lower(full_name) text_pattern_ops) WHERE (full_name <> ' a  very long literal that must not be broken '::text)".to_owned(),
        }),
    )
    .locks(USERS, LockMode::ShareUpdateExclusive)
    .scanning()
}

fn foreign_key() -> Step {
    Step::sql(
        "add the foreign key \"orders_user_full_name_fkey\" to the new column, for new rows",
        "ALTER TABLE \"public\".\"orders\" ADD CONSTRAINT \"orders_user_full_name_fkey\" FOREIGN KEY (\"user_name\") REFERENCES \"public\".\"users\" (\"full_name\") ON DELETE CASCADE NOT VALID",
    )
    .locks("\"public\".\"orders\"", LockMode::ShareRowExclusive)
    .locks(USERS, LockMode::ShareRowExclusive)
    .locks("\"a schema with a long name\".\"and a table with an even longer one\"", LockMode::RowShare)
}

fn plan() -> Plan {
    let phases = vec![
        PlannedPhase::new(
            info("AddTarget", Window::new(0, 1), Gate::OPEN),
            1,
            6,
            Steps::known(&[add()]),
            PlannedRollback::steps(&[drop_column("full_name")]),
        ),
        PlannedPhase::new(
            info("WriteBoth", Window::new(0, 1), Gate::fleet(1)),
            2,
            6,
            Steps::known(&[]),
            PlannedRollback::steps(&[]),
        ),
        PlannedPhase::new(
            info("Backfill", Window::new(1, 2), Gate::OPEN),
            3,
            6,
            Steps::known(&[fill(), index(), foreign_key()]),
            PlannedRollback::steps(&[Step::new(
                "drop index \"users_full_name_idx\"",
                Action::DropIndex(DropIndex {
                    schema: "public".to_owned(),
                    name: "users_full_name_idx".to_owned(),
                }),
            )
            .locks(USERS, LockMode::ShareUpdateExclusive)]),
        ),
        PlannedPhase::new(
            info("StopOldWrites", Window::new(2, 3), Gate::fleet(3).and_soak().and_unreferenced()),
            5,
            6,
            Steps::known(&[Step::save("column \"name\"", serde_json::json!({"a": 1}))]),
            PlannedRollback::Unknown {
                because: "it depends on what an earlier phase makes (column \"full_name\" does not exist)"
                    .to_owned(),
            },
        ),
        PlannedPhase::new(
            info("DropSource", Window::new(3, 3), Gate::OPEN),
            6,
            6,
            Steps::known(&[drop_column("name")]),
            PlannedRollback::Irreversible { reason: "the table has no key".to_owned() },
        ),
    ];
    let because = "table audit is created by migration 1, which comes first";
    let unknown = PlannedPhase::new(
        info("Run", Window::new(0, 0), Gate::OPEN),
        1,
        1,
        Steps::Unknown { because: because.to_owned() },
        PlannedRollback::Unknown { because: because.to_owned() },
    );
    Plan {
        migrations: vec![
            PlannedMigration::new("20261122_users_full_name", phases).warning(vec![
                "trigger \"normalise\" reads column \"name\" and never sees what the new release writes: teach it the new column before SwitchReads is left".to_owned(),
            ]),
            PlannedMigration::new("20261123_audit", vec![unknown]),
        ],
    }
}

#[test]
fn a_plan_reads_as_a_table() {
    insta::assert_snapshot!(plan().to_string(), @r#"
              step                                       lock                    on                                        blocks         scans  tx
        ════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════
         20261122_users_full_name
            ! trigger "normalise" reads column "name" and never sees what the new release writes: teach it the new column before SwitchReads is left
        ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         1/6  AddTarget                                  releases 0–1
              add column "full_name"                     ACCESS EXCLUSIVE        "public"."users"                          reads, writes  –      yes
                ALTER TABLE "public"."users" ADD COLUMN "full_name" text;
            ↩ drop column "full_name"                    ACCESS EXCLUSIVE        "public"."users"                          reads, writes  –      yes
                ALTER TABLE "public"."users" DROP COLUMN "full_name";
        ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         2/6  WriteBoth                                  releases 0–1 · left when: fleet ≥ 1
              nothing to do in the database
            ↩ revert the deploy
        ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         3/6  Backfill                                   releases 1–2
              copy "name" to "full_name" where they      ROW EXCLUSIVE           "public"."users"                          –              yes    yes
              differ
                UPDATE ONLY "public"."users" AS t SET "full_name" = (t."name") WHERE {range} AND (t."full_name" IS DISTINCT FROM (t."name") AND
                  t."deleted at" IS NULL);
              build index "users_full_name_idx"          SHARE UPDATE EXCLUSIVE  "public"."users"                          –              yes    no
                CREATE UNIQUE INDEX CONCURRENTLY "users_full_name_idx" ON "public"."users" USING btree (lower(full_name) text_pattern_ops) WHERE
                  (full_name <> ' a  very long literal that must not be broken '::text);
              add the foreign key                        SHARE ROW EXCLUSIVE     "public"."orders"                         writes         –      yes
              "orders_user_full_name_fkey" to the new    SHARE ROW EXCLUSIVE     "public"."users"                          writes
              column, for new rows                       ROW SHARE               "a schema with a long name"."and a table  –
                                                                                  with an even longer one"
                ALTER TABLE "public"."orders" ADD CONSTRAINT "orders_user_full_name_fkey" FOREIGN KEY ("user_name") REFERENCES "public"."users"
                  ("full_name") ON DELETE CASCADE NOT VALID;
            ↩ drop index "users_full_name_idx"           SHARE UPDATE EXCLUSIVE  "public"."users"                          –              –      no
                DROP INDEX CONCURRENTLY "public"."users_full_name_idx";
        ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         5/6  StopOldWrites                              releases 2–3 · left when: fleet ≥ 3, soak, no references
              save column "name"                         –                                                                 –              –      yes
            ↩ not known yet: it depends on what an earlier phase makes (column "full_name" does not exist)
        ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         6/6  DropSource                                 release 3
              drop column "name"                         ACCESS EXCLUSIVE        "public"."users"                          reads, writes  –      yes
                ALTER TABLE "public"."users" DROP COLUMN "name";
            ↩ cannot be undone: the table has no key
        ════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════
         20261123_audit
        ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         1/1  Run                                        release 0
              not known yet: table audit is created by migration 1, which comes first
            ↩ not known yet: table audit is created by migration 1, which comes first
        ════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════
        2 migrations, 6 phases, 6 steps; none reads a whole table while it blocks anyone.
        ↩ how a phase is undone. tx: in a transaction. Blocking locks are held for moments, and given up at the stall budget.
        {range}: one small batch of rows at a time, each in a transaction of its own.
        Computed from the catalog as it is now; the steps of each phase are computed afresh when it is entered.
        "#);
}

#[test]
fn an_empty_plan_says_so() {
    assert_eq!(
        Plan::default().to_string(),
        "Nothing to do: every migration has gone through all its phases.\n"
    );
}

#[test]
fn no_line_is_wider_than_the_terminal_unless_sql_cannot_be_broken() {
    for line in plan().to_string().lines() {
        assert!(text::width(line) <= 140, "{line}");
    }
    let long = "x".repeat(200);
    assert_eq!(text::wrap(&format!("SELECT '{long}  a'"), 40), ["SELECT".to_owned(), format!("'{long}  a'")]);
}

#[test]
fn wide_letters_take_two_columns_and_marks_none() {
    assert_eq!(text::width("名前"), 4);
    assert_eq!(text::width("e\u{301}"), 1);
    assert_eq!(text::pad("名", 4), "名  ");
    assert_eq!(text::chop("名前x", 3), ["名", "前x"]);
}

#[test]
fn wrapped_sql_is_the_same_sql() {
    let sql = "CREATE FUNCTION f() AS '\n    begin\n        return  new;\n    end' LANGUAGE plpgsql";
    assert_eq!(text::wrap(sql, 200).join("\n"), sql);
    let code = "DO 'BEGIN RAISE ''two  words %'', 1; END'";
    assert_eq!(text::wrap(code, 16), ["DO 'BEGIN RAISE", "''two  words %'',", "1; END'"]);
    let commented = "SELECT 1 -- one, and not more";
    assert_eq!(text::wrap(commented, 10), [commented]);
}

#[test]
fn a_scan_under_a_lock_that_blocks_is_pointed_out() {
    let bad = Step::sql("check", "ALTER TABLE t ADD CHECK (a > 0)")
        .locks("t", LockMode::AccessExclusive)
        .scanning();
    let phase = PlannedPhase::new(
        info("Run", Window::new(0, 0), Gate::OPEN),
        1,
        1,
        Steps::known(&[bad]),
        PlannedRollback::Irreversible { reason: "it is a test".to_owned() },
    );
    let plan = Plan { migrations: vec![PlannedMigration::new("bad", vec![phase])] };
    assert!(
        plan.to_string()
            .contains("1 migration, 1 phase, 1 step; 1 READS a whole table while it blocks anyone.")
    );
}

#[test]
fn tools_read_the_same_as_json() {
    let step = PlannedStep::from(&foreign_key().probe(Probe::Repeatable));
    assert_eq!(step.blocks_writes, ["\"public\".\"orders\"", USERS]);
    assert!(step.blocks_reads.is_empty());
    let json = serde_json::to_value(plan()).unwrap_or_default();
    let phases = &json["migrations"][0]["phases"];
    assert_eq!(phases[0]["steps"]["known"][0]["blocks_reads"][0], USERS);
    assert_eq!(phases[0]["steps"]["known"][0]["locks"][0]["mode"], "AccessExclusive");
    assert_eq!(phases[1]["rollback"], "revert_deploy");
    assert_eq!(phases[4]["rollback"]["irreversible"]["reason"], "the table has no key");
    assert!(json["migrations"][1]["phases"][0]["steps"]["unknown"]["because"].is_string());
}
