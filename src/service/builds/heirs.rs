//! New recipes that follow a wanted one, and have its demand.
//!
//! A release of a package, or of something below it, or of rustc makes recipes that
//! nobody has wanted before, and whoever moves to it first would compile. So a
//! recipe that is new here is built at once where all else says that it takes the
//! place of one that enough wanted: the same package, features, kind and profile,
//! nothing below it older, and something newer, or another platform.
//!
//! Somebody who makes up recipes gets [`HEIRS`] a day for each one that enough
//! wanted, and no further: an heir has no heirs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use semver::Version;
use sqlx::{Any, Transaction};

use super::{Builds, DOING, closure, number, recipe_texts, text};
use crate::cargo::toolchain::field;
use crate::digest::{Canonical, TreeHash};
use crate::fs;
use crate::recipe::Recipe;
use crate::recipe::package::PackageRecipe;
use crate::service::database::{Doing as _, Result, Rows};

/// New recipes that are looked at together.
const TOGETHER: i64 = 64;
/// How long is looked before something else is done.
const LOOKING: Duration = Duration::from_secs(2);
/// Recipes of a line that are compared, the newest ones.
const COMPARED: usize = 32;
/// Heirs of a recipe that were reported within a day.
const HEIRS: i64 = 3;
/// Profile fields that tell lines apart. Another Cargo may know more of them.
const PROFILE: [&str; 6] = [
    "debug_assertions",
    "debuginfo",
    "lto",
    "opt_level",
    "overflow_checks",
    "panic",
];

/// A recipe that is new here.
struct New {
    want: i64,
    /// Empty if nothing can follow it.
    line: String,
}

impl Builds {
    /// The last recipe that anybody has reported.
    pub(super) async fn newest_recipe(&self) -> Result<i64> {
        let last = sqlx::query("SELECT COALESCE(MAX(want), 0) FROM recipe_files");
        let last = last.fetch_one(self.database.readers()).await.doing(DOING)?;
        number(&last, 0)
    }

    /// Looks at recipes that are new, and gives them the demand of what they follow:
    /// those up to `newest`, for which builds have been made of what enough want. What
    /// takes too long goes on with the next look: builds that enough want do not wait.
    pub(super) async fn look(&self, newest: i64) -> Result<()> {
        let until = Instant::now() + LOOKING;
        while Instant::now() < until {
            let new = self.new_recipes(newest).await?;
            if new.is_empty() {
                return Ok(());
            }
            let found = self.ancestors(&new).await?;
            self.note_lines(&new, &found).await?;
        }
        Ok(())
    }

    /// Recipes that were not looked at; ids tell which.
    async fn new_recipes(&self, newest: i64) -> Result<Vec<New>> {
        const FIND: &str = "SELECT want, text FROM recipe_files \
            WHERE want > (SELECT COALESCE(MAX(want), 0) FROM lines) AND want <= $1 \
            ORDER BY want LIMIT $2";
        let find = sqlx::query(FIND).bind(newest).bind(TOGETHER);
        let rows = find.fetch_all(self.database.readers()).await.doing(DOING)?;
        let new = rows.iter().map(|row| {
            let recipe = PackageRecipe::from_toml(&text(row, 1)?);
            Ok(New {
                want: number(row, 0)?,
                line: recipe.map_or_else(|_| String::new(), |recipe| line(recipe.main())),
            })
        });
        new.collect()
    }

    /// Which of those that enough wanted each of some follows.
    async fn ancestors(&self, new: &[New]) -> Result<BTreeMap<i64, i64>> {
        // Their own lines are not noted yet.
        const FIND: &str = "SELECT lines.line, lines.want FROM {each} \
            JOIN lines ON lines.line = (each.value ->> 0) \
            JOIN builds ON builds.want = lines.want \
            WHERE builds.own = 1 AND builds.state <> 'refused' \
            UNION SELECT each.value ->> 0, builds.want FROM {each} \
            JOIN builds ON builds.want = CAST(each.value ->> 1 AS BIGINT) \
            WHERE builds.own = 1 AND builds.state <> 'refused' ORDER BY 2 DESC";
        let asked: Rows = new.iter().map(|new| (&new.line, new.want)).collect();
        let find = sqlx::query(self.database.sql(FIND)).bind(asked.finish());
        let rows = find.fetch_all(self.database.readers()).await.doing(DOING)?;
        let mut lines: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for row in &rows {
            let wants = lines.entry(text(row, 0)?).or_default();
            if wants.len() < COMPARED {
                wants.push(number(row, 1)?);
            }
        }
        let mut standings = BTreeMap::new();
        let mut found = BTreeMap::new();
        for new in new.iter().filter(|new| !new.line.is_empty()) {
            let Some(wants) = lines.get(&new.line) else {
                continue;
            };
            let Some(own) = self.standing(new.want).await? else {
                continue;
            };
            let mut best = None;
            for want in wants {
                if !standings.contains_key(want) {
                    standings.insert(*want, self.standing(*want).await?);
                }
                if let Some(Some(other)) = standings.get(want)
                    && own.follows(other)
                {
                    best = best.max(Some((other.nearness(&own), *want)));
                }
            }
            found.extend(best.map(|(_, want)| (new.want, want)));
        }
        Ok(found)
    }

    /// How new a recipe and all below it is; none if that cannot be told.
    async fn standing(&self, want: i64) -> Result<Option<Standing>> {
        let reader = self.database.readers().acquire().await;
        let mut reader = reader.doing(DOING)?;
        let wants = closure(&self.database, &mut reader, want).await?;
        // It comes after all that it needs.
        let last = wants.len().saturating_sub(1);
        let texts = recipe_texts(&self.database, &mut reader, &wants[last..]).await?;
        let recipe = texts.get(&want).map(|text| PackageRecipe::from_toml(text));
        let Some(Ok(recipe)) = recipe else {
            return Ok(None);
        };
        let packages = wants.iter().map(|want| (&*want.name, &*want.version));
        Ok(Standing::new(recipe.main(), packages))
    }

    /// Notes that recipes were looked at, and what they follow. Another server may
    /// have been faster.
    async fn note_lines(&self, new: &[New], ancestors: &BTreeMap<i64, i64>) -> Result<()> {
        let mut transaction = self.database.begin().await?;
        let rows: Rows = new.iter().map(|new| (new.want, &new.line)).collect();
        const LINES: &str = "INSERT INTO lines (want, line) \
            SELECT CAST(each.value ->> 0 AS BIGINT), each.value ->> 1 FROM {each} WHERE TRUE \
            ON CONFLICT (want) DO NOTHING";
        let lines = sqlx::query(self.database.sql(LINES)).bind(rows.finish());
        lines.execute(&mut *transaction).await.doing(DOING)?;
        let now = fs::now().seconds();
        for (want, ancestor) in ancestors {
            const HEIR: &str = "INSERT INTO heirs (want, ancestor, builder, since) \
                SELECT CAST($1 AS BIGINT), CAST($2 AS BIGINT), '', CAST($3 AS BIGINT) \
                WHERE NOT EXISTS (SELECT 1 FROM heirs WHERE want = $1) \
                AND (SELECT COUNT(*) FROM heirs \
                WHERE ancestor = $2 AND builder = '' AND since > $4) < $5";
            let heir = sqlx::query(HEIR).bind(*want).bind(*ancestor).bind(now);
            let heir = heir.bind(now - 86_400).bind(HEIRS);
            heir.execute(&mut *transaction).await.doing(DOING)?;
        }
        transaction.commit().await.doing(DOING)
    }

    /// Gives wants the demand of others: rows of the one, the other, the builder that
    /// it is for, and the second.
    pub(super) async fn add_heirs(
        &self,
        transaction: &mut Transaction<'static, Any>,
        rows: Rows,
    ) -> Result<()> {
        const ADD: &str = "INSERT INTO heirs (want, ancestor, builder, since) \
            SELECT CAST(each.value ->> 0 AS BIGINT), CAST(each.value ->> 1 AS BIGINT), \
            each.value ->> 2, CAST(each.value ->> 3 AS BIGINT) FROM {each} WHERE TRUE \
            ON CONFLICT (want, ancestor) DO UPDATE SET builder = excluded.builder";
        let add = sqlx::query(self.database.sql(ADD)).bind(rows.finish());
        add.execute(&mut **transaction).await.doing(DOING)?;
        Ok(())
    }
}

/// What all versions of a recipe have in common, on whatever platform and with
/// whatever toolchain.
fn line(main: &Recipe) -> String {
    let mut canonical = Canonical::new("quickbuild-line-1");
    canonical.text(&main.name).text(&main.source);
    canonical.text(&main.target.kind).list(&main.features);
    canonical.number(u64::from(main.test));
    for field in PROFILE {
        canonical.option(main.profile.get(field).map(String::as_str));
    }
    TreeHash::finish(canonical).to_string()
}

/// How new a recipe is.
#[derive(Debug)]
struct Standing {
    platform: String,
    rustc: Version,
    /// The highest version of each package in its closure.
    packages: BTreeMap<String, Version>,
}

impl Standing {
    /// Only releases stand anywhere: a nightly is gone tomorrow.
    fn new<'a>(main: &Recipe, packages: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let rustc = Version::parse(field(&main.toolchain.rustc, "release")?).ok()?;
        if !rustc.pre.is_empty() {
            return None;
        }
        let mut highest: BTreeMap<String, Version> = BTreeMap::new();
        for (name, version) in packages {
            let version = Version::parse(version).ok()?;
            let known = highest.entry(name.to_owned());
            let known = known.or_insert_with(|| version.clone());
            *known = version.max(known.clone());
        }
        Some(Self {
            platform: main.platform.clone(),
            rustc,
            packages: highest,
        })
    }

    /// Whether who wants the other one would want this one by and by.
    fn follows(&self, other: &Self) -> bool {
        let mut is_newer = self.rustc > other.rustc || self.platform != other.platform;
        if self.rustc < other.rustc {
            return false;
        }
        for (name, version) in &self.packages {
            let Some(known) = other.packages.get(name) else {
                continue;
            };
            // Nobody moves to a pre-release without being asked.
            if version < known || (version > known && !version.pre.is_empty()) {
                return false;
            }
            is_newer |= version > known;
        }
        is_newer
    }

    /// Which of several that another one follows it takes the place of.
    fn nearness(&self, other: &Self) -> (bool, Version, usize) {
        let same = |(name, version): (&String, &Version)| other.packages.get(name) == Some(version);
        let same = self.packages.iter().filter(|package| same(*package));
        (
            self.platform == other.platform,
            self.rustc.clone(),
            same.count(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(rustc: &str, platform: &str, packages: &str) -> Standing {
        let packages = packages.split(' ').map(|package| {
            let (name, version) = package.split_once('@').unwrap();
            (name.to_owned(), version.parse().unwrap())
        });
        Standing {
            platform: platform.to_owned(),
            rustc: rustc.parse().unwrap(),
            packages: packages.collect(),
        }
    }

    #[test]
    fn what_is_newer_and_in_nothing_older_follows() {
        let old = standing("1.95.0", "x", "a@1.0.0 b@1.0.0");
        let follows = |rustc, platform, packages| {
            let new = standing(rustc, platform, packages);
            new.follows(&old)
        };
        assert!(follows("1.95.0", "x", "a@1.0.1 b@1.0.0"));
        assert!(follows("1.95.0", "x", "a@1.0.0 b@2.0.0 c@0.1.0"));
        assert!(follows("1.96.0", "x", "a@1.0.0 b@1.0.0"));
        assert!(follows("1.95.0", "y", "a@1.0.0 b@1.0.0"));
        assert!(!follows("1.95.0", "x", "a@1.0.0 b@1.0.0"), "the same");
        assert!(
            !follows("1.95.0", "x", "a@1.0.0 c@0.1.0"),
            "nothing is newer"
        );
        assert!(
            !follows("1.95.0", "x", "a@1.0.1 b@0.9.0"),
            "something is older"
        );
        assert!(!follows("1.94.0", "x", "a@1.0.1 b@1.0.0"));
        assert!(!follows("1.95.0", "x", "a@1.1.0-rc.1 b@1.0.0"));
    }

    #[test]
    fn the_nearest_one_is_followed() {
        let new = standing("1.96.0", "x", "a@1.0.2 b@1.0.1");
        let others = [
            standing("1.95.0", "y", "a@1.0.2 b@1.0.1"),
            standing("1.94.0", "x", "a@1.0.2 b@1.0.1"),
            standing("1.95.0", "x", "a@1.0.1 b@1.0.0"),
            standing("1.95.0", "x", "a@1.0.1 b@1.0.1"),
        ];
        let nearness = others.iter().map(|other| other.nearness(&new));
        assert!(nearness.is_sorted());
    }
}
