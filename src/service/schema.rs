//! The tables, step by step. A step that was released is never changed.

/// The version that this program knows: as many steps as there are.
pub const VERSION: i64 = STEPS.len() as i64;

/// Statements end with a semicolon and a new line.
pub(super) const STEPS: &[&str] = &[COUNTING, BUILDING, FOLLOWING, WAITING, MAKING, PLANNING];

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

/// What is built.
///
/// * `builds`: a recipe that was wanted often enough. Its `state` is `queued`,
///   `leased`, `built`, `resting` (it failed too often), `refused` (it may not be
///   built here), or `covered`: the build `root` makes it as well. `round` counts
///   tries, and `pushed` is the last one that the queue knows.
/// * `tries`: a lease, with what came of it, and the end of its log.
/// * `votes`: what workers that are not believed alone have made.
/// * `outputs`: what is published.
/// * `worker_names`: who asked for work, and when last (apalis has `Workers`, which is
///   another word for SQLite only in capitals).
const BUILDING: &str = "
CREATE TABLE builds (
    id {id} PRIMARY KEY,
    want BIGINT NOT NULL UNIQUE,
    recipe TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    builder TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    root BIGINT NOT NULL,
    round BIGINT NOT NULL,
    pushed BIGINT NOT NULL,
    after BIGINT NOT NULL,
    priority BIGINT NOT NULL,
    lease TEXT NOT NULL,
    task TEXT NOT NULL,
    since BIGINT NOT NULL,
    ended BIGINT NOT NULL
);
CREATE INDEX builds_by_state ON builds (state, builder, after);
CREATE INDEX builds_by_root ON builds (root);
CREATE TABLE tries (
    lease TEXT PRIMARY KEY,
    build BIGINT NOT NULL,
    token TEXT NOT NULL,
    worker TEXT NOT NULL,
    began BIGINT NOT NULL,
    seen BIGINT NOT NULL,
    ended BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    log TEXT NOT NULL
);
CREATE INDEX tries_by_build ON tries (build, began);
CREATE INDEX tries_by_time ON tries (began);
CREATE TABLE votes (
    output TEXT NOT NULL,
    token TEXT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (output, token)
);
CREATE TABLE outputs (
    output TEXT PRIMARY KEY,
    build BIGINT NOT NULL,
    recipe TEXT NOT NULL,
    host_recipe TEXT NOT NULL,
    name TEXT NOT NULL,
    content TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    milliseconds BIGINT NOT NULL,
    agreed BIGINT NOT NULL,
    since BIGINT NOT NULL
);
CREATE INDEX outputs_by_recipe ON outputs (recipe);
CREATE INDEX outputs_by_host_recipe ON outputs (host_recipe);
CREATE INDEX outputs_by_name ON outputs (name);
CREATE TABLE worker_names (
    token TEXT NOT NULL,
    name TEXT NOT NULL,
    builders TEXT NOT NULL,
    since BIGINT NOT NULL,
    seen BIGINT NOT NULL,
    PRIMARY KEY (token, name)
);
";

/// What is built before enough ask for it.
///
/// * `builds`: `own` is 1 where enough wanted it or what covers it themselves, and
///   `wanted` is the second when that was, or when it was for what it follows;
///   `disputed` is 1 once workers have made different things of it.
/// * `lines`: recipes that were looked at, and what all versions of one have in
///   common; empty where nothing can follow it.
/// * `heirs`: a want that has the demand of another one; `builder` is empty if it
///   was reported, and names the toolchain that it was rewritten for otherwise. What
///   cannot be rewritten is its own heir.
/// * `toolchains`: those that have made something, or that an administrator named;
///   `fields` are those of profiles, as their Cargo has them, and `previous` is the
///   builder whose recipes are rewritten.
const FOLLOWING: &str = "
ALTER TABLE builds ADD COLUMN own BIGINT NOT NULL DEFAULT 1;
ALTER TABLE builds ADD COLUMN wanted BIGINT NOT NULL DEFAULT 0;
ALTER TABLE builds ADD COLUMN disputed BIGINT NOT NULL DEFAULT 0;
UPDATE builds SET wanted = since;
CREATE TABLE lines (want BIGINT PRIMARY KEY, line TEXT NOT NULL);
CREATE INDEX lines_by_line ON lines (line, want);
CREATE TABLE heirs (
    want BIGINT NOT NULL,
    ancestor BIGINT NOT NULL,
    builder TEXT NOT NULL,
    since BIGINT NOT NULL,
    PRIMARY KEY (want, ancestor)
);
CREATE INDEX heirs_by_ancestor ON heirs (ancestor, builder, since);
CREATE TABLE toolchains (
    builder TEXT PRIMARY KEY,
    rustc TEXT NOT NULL,
    cargo TEXT NOT NULL,
    layout TEXT NOT NULL,
    fields TEXT NOT NULL,
    previous TEXT NOT NULL,
    since BIGINT NOT NULL
);
";

/// * `builds.standing`: where a build stands in the queue, by what it would save and
///   by how long it has waited. What is queued is queued anew, by that.
const WAITING: &str = "
ALTER TABLE builds ADD COLUMN standing BIGINT NOT NULL DEFAULT 0;
UPDATE builds SET round = round + 1 WHERE state = 'queued';
";

/// * `tries.making`: the wants that are made under a lease that has not ended.
/// * `builds.behind`: the build that made some of it when its turn came.
const MAKING: &str = "
ALTER TABLE tries ADD COLUMN making TEXT NOT NULL DEFAULT '';
ALTER TABLE builds ADD COLUMN behind BIGINT NOT NULL DEFAULT 0;
";

/// * `plans`: a tree that enough want, and a builder that its recipes are wanted for.
///   Its `state` is `open`, `done`, or `covered`: the tree `root` has it below it.
///   A worker is asked for it from the second `after` on; `tries` are those since it
///   last rested.
const PLANNING: &str = "
CREATE TABLE plans (
    want BIGINT NOT NULL,
    builder TEXT NOT NULL,
    state TEXT NOT NULL,
    root BIGINT NOT NULL,
    after BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (want, builder)
);
CREATE INDEX plans_by_state ON plans (state, builder, after);
CREATE INDEX plans_by_root ON plans (root);
CREATE INDEX builds_by_name ON builds (name, version);
";
