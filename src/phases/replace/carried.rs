//! What hangs on the source, made over for the target.

use std::collections::BTreeSet;

use super::Replace;
use crate::catalog::{
    Column, Constraint, ConstraintKind, ForeignKey, Index, Question, Statistics, Table, alike,
};
use crate::error::{Error, Kind, Result};
use crate::ident::{derived, hashed, literal, quote};
use crate::phase::Context;
use crate::step::Step;
use crate::steps::{column, constraint, index, statistics, trial};

/// Everything that the target needs to stand in for the source.
#[derive(Debug)]
pub(super) struct Carried {
    indexes: Vec<CarriedIndex>,
    checks: Vec<CarriedCheck>,
    statistics: Vec<CarriedStatistics>,
    foreign_keys: Vec<ForeignKey>,
    pub(super) not_null: bool,
    /// Its name and comment, where it is a constraint (18 and newer).
    not_null_like: Option<(String, Option<String>)>,
}

#[derive(Debug)]
struct CarriedIndex {
    /// The source's.
    from: String,
    index: Index,
    /// The UNIQUE constraint that it backs: its comment, and whether it is deferrable and deferred.
    constraint: Option<(Option<String>, bool, bool)>,
}

#[derive(Debug)]
struct CarriedCheck {
    name: String,
    definition: String,
    validated: bool,
    /// Whether the target's values may break it although the source's do not.
    unproven: bool,
    comment: Option<String>,
}

/// Extended statistics.
#[derive(Debug)]
struct CarriedStatistics {
    name: String,
    /// What stands between the name and `FROM`.
    middle: String,
    /// All that it reads.
    columns: Vec<String>,
    like: Statistics,
}

impl Replace {
    fn statistics<'a>(&self, table: &'a Table) -> impl Iterator<Item = (&'a Statistics, &'a str)> {
        let source = self.source.as_str();
        table
            .statistics
            .iter()
            .filter(move |found| found.columns.iter().any(|used| used == source))
            .filter_map(|found| {
                let middle = found.definition.strip_prefix("CREATE STATISTICS ")?;
                let middle = middle.strip_prefix(found.name.as_str())?.trim_start();
                Some((found, &middle[..middle.rfind(" FROM ")?]))
            })
    }

    /// Those columns, with the target in the source's place.
    fn swap(&self, columns: &[String]) -> Vec<String> {
        let (source, target) = (self.source.as_str(), self.target.as_str());
        columns.iter().map(|name| if name == source { target.to_owned() } else { name.clone() }).collect()
    }

    fn indexes<'a>(&self, table: &'a Table) -> impl Iterator<Item = &'a Index> {
        let (source, without) = (self.source.as_str(), self.without);
        table.indexes.iter().filter(move |index| {
            index.valid
                && index.uses.iter().any(|used| used == source)
                && !without.contains(&index.name.as_str())
        })
    }

    fn checks<'a>(&self, table: &'a Table) -> impl Iterator<Item = &'a Constraint> {
        let (source, without) = (self.source.as_str(), self.without);
        table.constraints.iter().filter(move |check| {
            check.kind == ConstraintKind::Check
                && check.columns.iter().any(|used| used == source)
                && !without.contains(&check.name.as_str())
        })
    }

    /// Foreign keys from and to the source, each once.
    pub(super) fn foreign_keys<'a>(&self, table: &'a Table) -> Vec<&'a ForeignKey> {
        let source = self.source.as_str();
        let mut keys: Vec<&ForeignKey> = Vec::new();
        let from = table.outgoing.iter().filter(|key| key.columns.iter().any(|used| used == source));
        let to = table.incoming.iter().filter(|key| key.ref_columns.iter().any(|used| used == source));
        for key in from.chain(to).filter(|key| !key.inherited) {
            if !keys
                .iter()
                .any(|seen| (&seen.schema, &seen.table, &seen.name) == (&key.schema, &key.table, &key.name))
            {
                keys.push(key);
            }
        }
        keys
    }

    fn index_key(&self, index: &Index) -> String {
        format!("index {} for column {} of {}", quote(&index.name), self.target.quoted(), self.table)
    }

    fn statistics_key(&self, name: &str) -> String {
        format!("statistics {name} for column {} of {}", self.target.quoted(), self.table)
    }

    fn check_key(&self, check: &Constraint) -> String {
        format!("check {} for column {} of {}", quote(&check.name), self.target.quoted(), self.table)
    }

    fn foreign_key_key(&self, key: &ForeignKey) -> String {
        format!(
            "foreign key {} of {} with the type of column {}",
            quote(&key.name),
            key.table_sql(),
            self.target.quoted()
        )
    }

    fn default_key(&self) -> String {
        format!("default of column {} of {}", self.target.quoted(), self.table)
    }

    /// A name for the target's version of `name`: the source's name in it replaced where it stands as a word, else
    /// the target's appended.
    fn name_like(&self, name: &str) -> String {
        let (source, target) = (self.source.as_str(), self.target.as_str());
        let is_word = |at: usize| {
            let before = name[..at].chars().next_back();
            let after = name[at + source.len()..].chars().next();
            ![before, after].into_iter().flatten().any(char::is_alphanumeric)
        };
        match name.match_indices(source).map(|(at, _)| at).find(|at| is_word(*at)) {
            Some(at) => derived(&[&format!("{}{target}{}", &name[..at], &name[at + source.len()..])]),
            None => derived(&[name, target]),
        }
    }
}

/// The type that the target is added with, as a declaration.
pub(super) fn added_type(replace: &Replace, source: &Column) -> String {
    match (&replace.retype, &source.collation) {
        (Some(retype), _) => retype.data_type.to_owned(),
        (None, Some(collation)) => format!("{} COLLATE {collation}", source.data_type),
        (None, None) => source.data_type.clone(),
    }
}

fn rights_key(key: &ForeignKey) -> String {
    format!("the right to refer to {} with foreign key {}", key.ref_table_sql(), quote(&key.name))
}

/// Whether this role may make the foreign key anew.
pub(super) fn may_refer(cx: &Context<'_>, key: &ForeignKey) -> Result<bool> {
    trial::read(cx, &rights_key(key))
}

fn rows_key(table: &Table) -> String {
    format!("row security of {}", table.sql())
}

/// Whether row security hides rows from this role although it owns the table.
pub(super) fn hides_rows(cx: &Context<'_>, table: &Table) -> Result<bool> {
    trial::read(cx, &rows_key(table))
}

/// What `refusals` needs to know, whatever the change.
pub(super) fn first_questions(replace: &Replace, cx: &Context<'_>) -> Result<Vec<Question>> {
    let mut questions = value_questions(replace, cx)?;
    let Some((table, source)) =
        cx.snapshot.find(replace.table).and_then(|table| Some((table, table.find(replace.source.as_str())?)))
    else {
        return Ok(questions);
    };
    let sql = table.sql();
    questions.push(trial::added_question(
        &sql,
        replace.target.as_str(),
        &added_type(replace, source),
        None,
        false,
    ));
    for key in replace.foreign_keys(table) {
        let columns = key.ref_columns.iter().map(|column| literal(column)).collect::<Vec<_>>().join(", ");
        questions.push(Question {
            key: rights_key(key),
            statements: Vec::new(),
            query: format!(
                "SELECT pg_catalog.to_jsonb(pg_catalog.bool_and(pg_catalog.has_column_privilege({}::regclass, c, 'REFERENCES'))) FROM pg_catalog.unnest(ARRAY[{columns}]::text[]) c",
                literal(&key.ref_table_sql())
            ),
        });
    }
    questions.push(Question {
        key: rows_key(table),
        statements: Vec::new(),
        query: format!(
            "SELECT pg_catalog.to_jsonb(c.relrowsecurity AND c.relforcerowsecurity AND NOT (r.rolsuper OR r.rolbypassrls)) FROM pg_catalog.pg_class c, pg_catalog.pg_roles r WHERE c.oid = {}::regclass AND r.rolname = CURRENT_USER",
            literal(&sql)
        ),
    });
    Ok(questions)
}

/// The new type, and both conversions.
pub(super) fn value_questions(replace: &Replace, cx: &Context<'_>) -> Result<Vec<Question>> {
    let Some(retype) = &replace.retype else { return Ok(Vec::new()) };
    let Some(table) = cx.snapshot.find(replace.table) else {
        return Ok(vec![trial::type_question(retype.data_type)]);
    };
    let sql = table.sql();
    let mut questions = vec![trial::type_question(retype.data_type)];
    if let Some(source) = table.find(replace.source.as_str()) {
        let extra = Some((replace.target.as_str(), retype.data_type));
        let (from, to) = (replace.source.as_str(), replace.target.as_str());
        questions.push(trial::expr_question(&sql, &retype.up, to, extra, Some(from)));
        questions.push(trial::expr_question(&sql, &retype.down, from, extra, Some(to)));
        if let Some(default) = source.default.as_ref().filter(|_| !source.default_is_volatile) {
            questions.push(Question {
                key: replace.default_key(),
                statements: vec![
                    format!(
                        "CREATE TEMP TABLE phasewise_trial (v {} DEFAULT {})",
                        retype.data_type,
                        over_default(replace, source, default)
                    ),
                    // What cannot be converted would fail the first insert that leaves the column out.
                    format!("INSERT INTO {} DEFAULT VALUES", trial::COPY),
                ],
                query: format!(
                    "SELECT pg_catalog.to_jsonb(pg_catalog.pg_get_expr(d.adbin, d.adrelid)) FROM pg_catalog.pg_attrdef d WHERE d.adrelid = '{}'::regclass",
                    trial::COPY
                ),
            });
        }
    }
    Ok(questions)
}

/// `up` of the source's default.
fn over_default(replace: &Replace, source: &Column, default: &str) -> String {
    match &replace.retype {
        None => default.to_owned(),
        Some(retype) => retype.up.render(|name| {
            if name == source.name { format!("(({default})::{})", source.data_type) } else { quote(name) }
        }),
    }
}

/// The target's default: the source's, through `up`. A volatile one (a sequence) is taken over as it is.
pub(super) fn default(replace: &Replace, cx: &Context<'_>, source: &Column) -> Result<Option<String>> {
    match &source.default {
        None => Ok(None),
        Some(default) if replace.retype.is_none() || source.default_is_volatile => Ok(Some(default.clone())),
        Some(_) => trial::read(cx, &replace.default_key()).map(Some),
    }
}

/// Asks for each index and check of the source, with the target in the source's place and type: Postgres writes
/// the new definition, so nothing is parsed here.
pub(super) fn questions(replace: &Replace, cx: &Context<'_>) -> Result<Vec<Question>> {
    let mut questions = value_questions(replace, cx)?;
    let Some(table) = cx.snapshot.find(replace.table) else { return Ok(questions) };
    if table.find(replace.source.as_str()).is_none() {
        return Ok(questions);
    }
    for found in replace.indexes(table) {
        let unique = if found.unique { "UNIQUE " } else { "" };
        let tail = "pg_catalog.substr(pg_catalog.pg_get_indexdef('pg_temp.phasewise_i'::regclass), pg_catalog.strpos(pg_catalog.pg_get_indexdef('pg_temp.phasewise_i'::regclass), ' USING ') + 7)";
        let make = format!("CREATE {unique}INDEX phasewise_i ON {} USING ", trial::COPY);
        questions.push(made_over(
            replace,
            table,
            replace.index_key(found),
            format!("{make}{}", found.tail),
            tail,
            "DROP INDEX pg_temp.phasewise_i",
            (&make, ""),
        ));
    }
    for found in replace.checks(table) {
        let definition = format!(
            "(SELECT pg_catalog.pg_get_constraintdef(c.oid) FROM pg_catalog.pg_constraint c WHERE c.conrelid = '{}'::regclass AND c.conname = 'phasewise_c')",
            trial::COPY
        );
        let make = format!("ALTER TABLE {} ADD CONSTRAINT phasewise_c ", trial::COPY);
        questions.push(made_over(
            replace,
            table,
            replace.check_key(found),
            format!("{make}{}", without_not_valid(&found.definition)),
            &definition,
            &format!("ALTER TABLE {} DROP CONSTRAINT phasewise_c", trial::COPY),
            (&make, ""),
        ));
    }
    for (Statistics { name, .. }, middle) in replace.statistics(table) {
        let definition = "(SELECT pg_catalog.regexp_replace(pg_catalog.pg_get_statisticsobjdef(s.oid), '^.*?phasewise_s (.*) FROM .*$', '\\1') FROM pg_catalog.pg_statistic_ext s WHERE s.stxname = 'phasewise_s' AND s.stxnamespace = pg_catalog.pg_my_temp_schema())";
        let (make, from) = ("CREATE STATISTICS pg_temp.phasewise_s ", format!(" FROM {}", trial::COPY));
        questions.push(made_over(
            replace,
            table,
            replace.statistics_key(name),
            format!("{make}{middle}{from}"),
            definition,
            "DROP STATISTICS pg_temp.phasewise_s",
            (make, &from),
        ));
    }
    if let Some(retype) = &replace.retype {
        for found in replace.foreign_keys(table) {
            questions.push(same_operators(replace, table, found, retype.data_type));
        }
    }
    Ok(questions)
}

/// Makes an object on the copy, renames source to target there, and reads the definition back; where the type
/// changes, makes it once more on the retyped column.
fn made_over(
    replace: &Replace,
    table: &Table,
    key: String,
    create: String,
    read_back: &str,
    remove: &str,
    (make, end): (&str, &str),
) -> Question {
    let (source, target) = (replace.source.quoted(), replace.target.quoted());
    let mut statements = vec![
        trial::copy_of(&table.sql(), "INCLUDING GENERATED"),
        format!("ALTER TABLE {} DROP COLUMN IF EXISTS {target}", trial::COPY),
        create,
        format!("ALTER TABLE {} RENAME COLUMN {source} TO {target}", trial::COPY),
    ];
    if let Some(retype) = &replace.retype {
        let body = format!(
            "DECLARE pw text; BEGIN pw := {read_back}; {remove}; ALTER TABLE {} ALTER COLUMN {target} TYPE {} USING NULL; EXECUTE {} || pw || {}; END",
            trial::COPY,
            retype.data_type,
            literal(make),
            literal(end)
        );
        statements.push(format!("DO {}", literal(&body)));
    }
    Question { key, statements, query: format!("SELECT pg_catalog.to_jsonb({read_back})") }
}

/// Whether a foreign key may join the new type to what is at its other end.
fn same_operators(replace: &Replace, table: &Table, key: &ForeignKey, data_type: &str) -> Question {
    let (source, sql) = (replace.source.as_str(), table.sql());
    let side = |temp: &str, relation: &str, names: &[String]| {
        let columns: Vec<String> = names
            .iter()
            .enumerate()
            .map(|(n, name)| {
                if relation == sql && name == source {
                    format!("NULL::{data_type} AS c{n}")
                } else {
                    format!("x.{} AS c{n}", quote(name))
                }
            })
            .collect();
        format!("CREATE TEMP TABLE {temp} AS SELECT {} FROM {relation} AS x WITH NO DATA", columns.join(", "))
    };
    let list = (0..key.columns.len()).map(|n| format!("c{n}")).collect::<Vec<_>>().join(", ");
    Question {
        key: replace.foreign_key_key(key),
        statements: vec![
            side("phasewise_from", &key.table_sql(), &key.columns),
            side("phasewise_to", &key.ref_table_sql(), &key.ref_columns),
            format!("ALTER TABLE pg_temp.phasewise_to ADD UNIQUE ({list})"),
            format!(
                "ALTER TABLE pg_temp.phasewise_from ADD FOREIGN KEY ({list}) REFERENCES pg_temp.phasewise_to ({list})"
            ),
        ],
        query: "SELECT 'true'::jsonb".to_owned(),
    }
}

/// Reads the answers; refuses, by name, what does not survive the new type.
pub(super) fn carried(replace: &Replace, cx: &Context<'_>) -> Result<Carried> {
    let (table, source) = replace.source_in(cx.snapshot)?;
    let mut names = BTreeSet::new();
    let mut indexes = Vec::new();
    for found in replace.indexes(table) {
        let tail: String = trial::read(cx, &replace.index_key(found))
            .map_err(|error| does_not_survive(replace, "index", &found.name, error))?;
        let backed = table
            .constraints
            .iter()
            .find(|c| c.kind == ConstraintKind::Unique && c.index.as_deref() == Some(&found.name));
        let mut name = replace.name_like(&found.name);
        let is_ours = table
            .indexes
            .iter()
            .any(|index| index.name == name && alike(&index.tail, &tail) && index.unique == found.unique);
        // A UNIQUE constraint takes its index's name, which another constraint may have.
        let is_constraint = backed.is_some()
            && table.constraints.iter().any(|c| c.name == name && c.index.as_deref() != Some(&name));
        let is_taken = cx.snapshot.is_taken(&table.schema, &name) && !is_ours;
        if names.contains(&name) || is_taken || is_constraint {
            name = hashed(&format!("{name}_{}", found.name));
        }
        names.insert(name.clone());
        // Only one index of a table can be clustered by, so that the mark moves.
        let moved = table.indexes.iter().any(|index| index.name == name && index.clustered);
        indexes.push(CarriedIndex {
            from: found.name.clone(),
            index: Index {
                name,
                unique: found.unique,
                tail,
                comment: found.comment.clone(),
                clustered: found.clustered || moved,
                statistics: found.statistics.clone(),
                ..Index::default()
            },
            constraint: backed.map(|c| (c.comment.clone(), c.deferrable, c.deferred)),
        });
    }
    let mut checks = Vec::new();
    for found in replace.checks(table) {
        let definition: String = trial::read(cx, &replace.check_key(found))
            .map_err(|error| does_not_survive(replace, "check", &found.name, error))?;
        let mut name = replace.name_like(&found.name);
        let is_other = table
            .constraints
            .iter()
            .any(|c| c.name == name && !alike(without_not_valid(&c.definition), &definition));
        if names.contains(&name) || is_other {
            name = hashed(&format!("{name}_{}", found.name));
        }
        names.insert(name.clone());
        checks.push(CarriedCheck {
            name,
            definition,
            validated: found.validated,
            unproven: replace.retype.is_some(),
            comment: found.comment.clone(),
        });
    }
    let mut statistics = Vec::new();
    for (like, _) in replace.statistics(table) {
        let Statistics { name, columns, .. } = like;
        let middle: String = trial::read(cx, &replace.statistics_key(name))
            .map_err(|error| does_not_survive(replace, "statistics", name, error))?;
        let columns = replace.swap(columns);
        let found = unqualified(name);
        let mut name = replace.name_like(&found);
        let other = hashed(&format!("{name}_{found}"));
        let is_ours = |name: &str| {
            table
                .statistics
                .iter()
                .any(|seen| unqualified(&seen.name) == name && same_set(&seen.columns, &columns))
        };
        let is_other = table.statistics_taken.contains(&name) && !is_ours(&name);
        if is_other || is_ours(&other) || statistics.iter().any(|s: &CarriedStatistics| s.name == name) {
            name = other;
        }
        statistics.push(CarriedStatistics { name, middle, columns, like: like.clone() });
    }
    let mut foreign_keys: Vec<ForeignKey> = Vec::new();
    for found in replace.foreign_keys(table) {
        if replace.retype.is_some() {
            cx.answer(&replace.foreign_key_key(found))
                .map_err(|error| does_not_survive(replace, "foreign key", &found.name, error))?;
        }
        let mut key = redirected(replace, table, found);
        let is_carried = |key: &ForeignKey| {
            let beside = key.table_sql() == table.sql() && names.contains(&key.name);
            beside
                || foreign_keys
                    .iter()
                    .any(|seen| seen.table_sql() == key.table_sql() && seen.name == key.name)
        };
        let other = ForeignKey { name: hashed(&format!("{}_{}", key.name, found.name)), ..key.clone() };
        if is_carried(&key) || is_anothers(table, &key) || is_there(table, &other) {
            key = other;
        }
        foreign_keys.push(key);
    }
    let not_null_like =
        table.not_null(&source.name).map(|found| (replace.name_like(&found.name), found.comment.clone()));
    Ok(Carried { indexes, checks, statistics, foreign_keys, not_null: source.not_null, not_null_like })
}

fn does_not_survive(replace: &Replace, what: &str, name: &str, error: Error) -> Error {
    Error::new(
        Kind::Unsupported,
        format!(
            "{what} {} of {} cannot be carried over from column {} to {}: drop or change it first{} ({error})",
            quote(name),
            replace.table,
            replace.source.quoted(),
            replace.target.quoted(),
            if what == "foreign key" { "" } else { ", or name it in `.without(&[…])` to leave it behind" }
        ),
    )
}

fn same_set(a: &[String], b: &[String]) -> bool {
    a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>()
}

/// Whether that very foreign key is there.
fn is_there(table: &Table, key: &ForeignKey) -> bool {
    table.outgoing.iter().chain(&table.incoming).any(|found| {
        found.name == key.name
            && found.table_sql() == key.table_sql()
            && found.definition() == key.definition()
    })
}

/// Whether its table has another constraint of its name.
fn is_anothers(table: &Table, key: &ForeignKey) -> bool {
    let id = (key.schema.clone(), key.table.clone(), key.name.clone());
    let beside = key.table_sql() == table.sql() && table.constraints.iter().any(|c| c.name == key.name);
    (beside || table.incoming_taken.contains(&id)) && !is_there(table, key)
}

/// The last part of a qualified name that is quoted only where it must be.
fn unqualified(name: &str) -> String {
    match name.strip_suffix('"') {
        Some(quoted) => {
            let bytes = quoted.as_bytes();
            // The opening quote is the last one that is not doubled.
            let mut at = bytes.len();
            while at > 0 {
                at -= 1;
                if bytes[at] == b'"' {
                    if at > 0 && bytes[at - 1] == b'"' {
                        at -= 1;
                    } else {
                        break;
                    }
                }
            }
            quoted[at + 1..].replace("\"\"", "\"")
        }
        None => name.rsplit('.').next().unwrap_or(name).to_owned(),
    }
}

/// The foreign key with the target in the source's place, at whichever end that is.
fn redirected(replace: &Replace, table: &Table, key: &ForeignKey) -> ForeignKey {
    let sql = table.sql();
    let swap = |names: &[String], relation: &str| {
        if relation == sql { replace.swap(names) } else { names.to_vec() }
    };
    ForeignKey {
        name: replace.name_like(&key.name),
        columns: swap(&key.columns, &key.table_sql()),
        set_columns: swap(&key.set_columns, &key.table_sql()),
        ref_columns: swap(&key.ref_columns, &key.ref_table_sql()),
        ..key.clone()
    }
}

/// `pg_get_constraintdef` says NOT VALID at the end, where it is so.
pub(super) fn without_not_valid(definition: &str) -> &str {
    definition.strip_suffix(" NOT VALID").unwrap_or(definition)
}

impl Carried {
    /// What the source's NOT NULL was called, where it is gone by now.
    pub(super) fn label_not_null(&mut self, replace: &Replace, source: Option<(String, Option<String>)>) {
        if let Some((name, comment)) = source {
            self.not_null_like = Some((replace.name_like(&name), comment));
        }
    }

    /// Builds it all on the filled target: nothing here scans or builds under a lock that blocks anyone.
    ///
    /// `repair` comes once the foreign keys are there, NOT VALID: until then a cascade through the source's own
    /// (`ON DELETE SET NULL`) wrote the source alone.
    pub(super) fn build(
        &self,
        replace: &Replace,
        table: &Table,
        server_version: u32,
        repair: Option<Step>,
    ) -> Vec<Step> {
        let sql = table.sql();
        let mut steps = Vec::new();
        for carried in &self.indexes {
            let name = &carried.index.name;
            steps.extend(index::like(table, &carried.index, name));
            if let Some((comment, deferrable, deferred)) = &carried.constraint {
                steps.push(constraint::add_unique_using_index(table, name, name, *deferrable, *deferred));
                steps.extend(comment.as_ref().map(|comment| constraint::comment(&sql, name, comment)));
            }
        }
        steps.extend(self.foreign_keys.iter().map(constraint::add_foreign_key_not_valid));
        if !steps.is_empty() {
            steps.extend(repair);
        }
        for check in &self.checks {
            steps.extend(if check.unproven && check.validated {
                constraint::add_unproven_check(table, &check.name, &check.definition)
            } else {
                constraint::add_check(table, &check.name, &check.definition, check.validated)
            });
            steps.extend(
                check.comment.as_ref().map(|comment| constraint::comment(&sql, &check.name, comment)),
            );
        }
        for found in &self.statistics {
            steps.push(statistics::create(table, &found.name, &found.middle, &found.columns));
            let name = format!("{}.{}", quote(&table.schema), quote(&found.name));
            steps.extend(statistics::labels(&name, &found.like));
        }
        steps.extend(self.foreign_keys.iter().flat_map(constraint::validate_foreign_key));
        if self.not_null {
            let like = self.not_null_like.as_ref().map(|(name, comment)| (name.as_str(), comment.as_deref()));
            steps.extend(column::set_not_null(table, replace.target.as_str(), server_version, like));
        }
        steps
    }

    /// Takes it all away again, last first.
    pub(super) fn remove(&self, replace: &Replace, table: &Table) -> Vec<Step> {
        let mut steps = column::undo_not_null(table, replace.target.as_str());
        steps.extend(self.foreign_keys.iter().rev().map(constraint::drop_foreign_key));
        steps.extend(self.checks.iter().rev().map(|check| constraint::drop(table, &check.name)));
        steps
            .extend(self.statistics.iter().map(|found| statistics::drop(table, &found.name, &found.columns)));
        for carried in self.indexes.iter().rev() {
            let name = &carried.index.name;
            steps.extend(carried.index.clustered.then(|| index::cluster_on(table, &carried.from)));
            if carried.constraint.is_some() {
                steps.push(constraint::drop(table, name));
            }
            steps.extend(index::drop(table, name, &[]));
        }
        steps
    }
}
