//! The tables, step by step. A step that was released is never changed.

/// The version that this program knows: as many steps as there are.
pub const VERSION: i64 = STEPS.len() as i64;

/// Statements end with a semicolon and a new line.
pub(super) const STEPS: &[&str] = &[COUNTING];

/// What is wanted, by how many.
///
/// * `wants`: a tree, a recipe or a builder. Rows are never removed, so that an id
///   means the same for ever.
/// * `counts`: how many want each of them now, many of them in a row, which change
///   all the time (`counts.rs`); half of a page is left free for that, and no
///   index has what changes.
/// * `voices`: who may be counted: a client without a token by a keyed hash of
///   its address, a project of a client with one.
/// * `projects`: what the last report of a project wanted, as a set of ids. A
///   want's count is the number of voices that have it in some project.
/// * `tokens`: SHA-256 digests of tokens, and what each is for; `actions`: who
///   changed what, never removed.
/// * `usage`: what reports said, a day and a voice; `reports` so that each counts
///   once, for some weeks.
const COUNTING: &str = "
CREATE TABLE quickbuild (version BIGINT NOT NULL, secret TEXT NOT NULL);
INSERT INTO quickbuild (version, secret) VALUES (0, '');
CREATE TABLE wants (
    id {id} PRIMARY KEY,
    kind TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    needs TEXT NOT NULL,
    packages BIGINT NOT NULL,
    since BIGINT NOT NULL
);
CREATE INDEX wants_by_name ON wants (name, id);
CREATE TABLE counts (
    block {id} PRIMARY KEY,
    voices TEXT NOT NULL,
    trees BIGINT NOT NULL,
    recipes BIGINT NOT NULL,
    builders BIGINT NOT NULL
){half};
CREATE INDEX counts_by_trees ON counts (trees DESC) WHERE trees > 1;
CREATE INDEX counts_by_recipes ON counts (recipes DESC) WHERE recipes > 1;
CREATE INDEX counts_by_builders ON counts (builders DESC) WHERE builders > 1;
CREATE TABLE recipe_files (want BIGINT PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE voices (id {id} PRIMARY KEY, name TEXT NOT NULL UNIQUE, since BIGINT NOT NULL);
CREATE TABLE projects (
    voice BIGINT NOT NULL,
    project TEXT NOT NULL,
    content TEXT NOT NULL,
    wants TEXT NOT NULL,
    seen BIGINT NOT NULL,
    PRIMARY KEY (voice, project)
);
CREATE INDEX projects_by_time ON projects (seen);
CREATE TABLE reports (
    voice BIGINT NOT NULL,
    report TEXT NOT NULL,
    day BIGINT NOT NULL,
    PRIMARY KEY (voice, report)
);
CREATE INDEX reports_by_day ON reports (day);
CREATE TABLE usage (
    day BIGINT NOT NULL,
    voice BIGINT NOT NULL,
    reports BIGINT NOT NULL,
    hits BIGINT NOT NULL,
    misses BIGINT NOT NULL,
    milliseconds_saved BIGINT NOT NULL,
    milliseconds_compiled BIGINT NOT NULL,
    PRIMARY KEY (day, voice)
);
CREATE TABLE days (
    day BIGINT PRIMARY KEY,
    locks BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    reports BIGINT NOT NULL,
    hits BIGINT NOT NULL,
    misses BIGINT NOT NULL,
    milliseconds_saved BIGINT NOT NULL,
    milliseconds_compiled BIGINT NOT NULL
);
CREATE TABLE tokens (
    name TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    since BIGINT NOT NULL,
    until BIGINT NOT NULL
);
CREATE TABLE actions (
    id {id} PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL
);
";
