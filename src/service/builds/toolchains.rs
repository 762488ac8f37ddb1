//! Wanted recipes, rewritten for the next toolchain.
//!
//! ```text
//! something built with it ─┐
//!                          ├─► toolchain ─► recipes that enough wanted with the
//! an administrator's word ─┘                one before, rewritten ─► heirs
//! ```
//!
//! What a toolchain says of itself is part of every hash, and anybody may report
//! one. So one counts when something was published that was built with it, which
//! no builder does for tools that it has not; or when an administrator names it.
//! Where rewritten hashes are not those of the other Cargo, the builders say so
//! before they compile, and the builds rest.

use std::collections::BTreeMap;

use semver::Version;
use sqlx::{Any, AnyConnection, Transaction};

use super::{Builds, DOING, Wanted, closure, number, recipe_texts, text};
use crate::cargo::toolchain::{builder_name, field};
use crate::fs;
use crate::recipe::package::PackageRecipe;
use crate::recipe::retarget::retarget;
use crate::recipe::{Recipe, Tools};
use crate::service::counter;
use crate::service::database::{Doing as _, Result, Rows};
use crate::service::intake::{Want, wanted_recipes};

/// Closures that are rewritten in one go.
const AT_ONCE: i64 = 16;
/// Seconds after which what enough wanted is not rewritten any more: 90 days.
const WANTED: i64 = 90 * 86_400;
/// Profile fields that some forms of a recipe do not have.
const DEBUGGING: [&str; 3] = ["debuginfo", "split_debuginfo", "strip"];

/// A toolchain that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::service) struct Toolchain {
    /// The builder that has it.
    pub(in crate::service) builder: String,
    tools: Tools,
    /// Names of profile fields, apart by spaces; empty if they are not known.
    fields: String,
    /// The builder whose recipes are rewritten; empty if there is none.
    pub(in crate::service) previous: String,
}

impl Toolchain {
    /// A toolchain by what its programs print; none if it is no release.
    pub(in crate::service) fn new(tools: Tools) -> Option<Self> {
        let builder = builder_name(&tools.rustc)?;
        let version = Version::parse(field(&tools.rustc, "release")?).ok()?;
        if !version.pre.is_empty() {
            return None;
        }
        Some(Self {
            builder,
            tools,
            fields: String::new(),
            previous: String::new(),
        })
    }

    fn of_recipe(main: &Recipe) -> Option<Self> {
        Some(Self {
            fields: fields(main),
            ..Self::new(main.toolchain.clone())?
        })
    }
}

/// The version and host of a builder that has a release.
fn release(builder: &str) -> Option<(Version, &str)> {
    let (version, host) = builder.split_once('-')?;
    let version = Version::parse(version).ok()?;
    Some((version, host))
}

/// Names of the fields of a profile that all forms of a recipe have.
fn fields(main: &Recipe) -> String {
    let names = main.profile.keys().map(String::as_str);
    let names: Vec<&str> = names.filter(|name| !DEBUGGING.contains(name)).collect();
    names.join(" ")
}

impl Builds {
    /// Notes the toolchain of something that was published.
    pub(super) async fn prove(
        &self,
        transaction: &mut Transaction<'static, Any>,
        want: i64,
    ) -> Result<()> {
        const FIND: &str = "SELECT text FROM recipe_files WHERE want = $1";
        let find = sqlx::query(FIND).bind(want);
        let row = find.fetch_optional(&mut **transaction).await.doing(DOING)?;
        let Some(row) = row else { return Ok(()) };
        let recipe = PackageRecipe::from_toml(&text(&row, 0)?).ok();
        if let Some(toolchain) = recipe.and_then(|recipe| Toolchain::of_recipe(recipe.main())) {
            self.note_toolchain(transaction, toolchain).await?;
        }
        Ok(())
    }

    /// Makes a toolchain count, instead of what was said of the same builder
    /// before; gives it with its predecessor.
    pub(in crate::service) async fn note_toolchain(
        &self,
        transaction: &mut Transaction<'static, Any>,
        mut toolchain: Toolchain,
    ) -> Result<Toolchain> {
        let known = self.toolchains(transaction).await?;
        let mut known = known.into_iter();
        let known = known.find(|known| known.builder == toolchain.builder);
        toolchain.previous = match &known {
            Some(known) => known.previous.clone(),
            None => self.previous(transaction, &toolchain.builder).await?,
        };
        if known.as_ref() == Some(&toolchain) {
            return Ok(toolchain);
        }
        const PUT: &str = "INSERT INTO toolchains \
            (builder, rustc, cargo, layout, fields, previous, since) \
            VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (builder) DO UPDATE SET \
            rustc = excluded.rustc, cargo = excluded.cargo, layout = excluded.layout, \
            fields = excluded.fields";
        let Tools {
            rustc,
            cargo,
            layout,
        } = &toolchain.tools;
        let put = sqlx::query(PUT).bind(&toolchain.builder).bind(rustc);
        let put = put.bind(cargo).bind(layout).bind(&toolchain.fields);
        let put = put.bind(&toolchain.previous).bind(fs::now().seconds());
        put.execute(&mut **transaction).await.doing(DOING)?;
        if known.is_some_and(|known| known.tools != toolchain.tools) {
            // What was rewritten for the wrong one is so once more.
            let forget = sqlx::query("DELETE FROM heirs WHERE builder = $1");
            let forget = forget.bind(&toolchain.builder);
            forget.execute(&mut **transaction).await.doing(DOING)?;
        }
        Ok(toolchain)
    }

    async fn toolchains(&self, connection: &mut AnyConnection) -> Result<Vec<Toolchain>> {
        const FIND: &str = "SELECT builder, rustc, cargo, layout, fields, previous FROM toolchains";
        let rows = sqlx::query(FIND).fetch_all(&mut *connection);
        let rows = rows.await.doing(DOING)?;
        let toolchains = rows.iter().map(|row| {
            Ok(Toolchain {
                builder: text(row, 0)?,
                tools: Tools {
                    rustc: text(row, 1)?,
                    cargo: text(row, 2)?,
                    layout: text(row, 3)?,
                },
                fields: text(row, 4)?,
                previous: text(row, 5)?,
            })
        });
        toolchains.collect()
    }

    /// The builder of the last release before a builder's, of those that have
    /// builds; empty if there is none.
    async fn previous(
        &self,
        transaction: &mut Transaction<'static, Any>,
        builder: &str,
    ) -> Result<String> {
        let Some((version, host)) = release(builder) else {
            return Ok(String::new());
        };
        let rows = sqlx::query("SELECT DISTINCT builder FROM builds");
        let rows = rows.fetch_all(&mut **transaction).await.doing(DOING)?;
        let names: Vec<String> = rows.iter().map(|row| text(row, 0)).collect::<Result<_>>()?;
        let older = names.into_iter().filter_map(|name| {
            let (other, of) = release(&name)?;
            (of == host && other < version).then(|| (other, name.clone()))
        });
        Ok(older.max().map_or_else(String::new, |(_, name)| name))
    }

    /// Rewrites some of what enough wanted, for the newest toolchain of each host.
    pub(super) async fn retarget(&self) -> Result<()> {
        let reader = self.database.readers().acquire().await;
        let toolchains = self.toolchains(&mut *reader.doing(DOING)?).await?;
        let releases = toolchains.iter().filter_map(|one| release(&one.builder));
        let releases: Vec<(Version, &str)> = releases.collect();
        let is_newest = |(version, host): (Version, &str)| {
            let mut others = releases.iter().filter(|(_, of)| *of == host);
            others.all(|(other, _)| *other <= version)
        };
        let newest = toolchains.iter().filter(|one| !one.previous.is_empty());
        for toolchain in newest.filter(|one| release(&one.builder).is_some_and(is_newest)) {
            self.retarget_for(toolchain).await?;
        }
        Ok(())
    }

    async fn retarget_for(&self, toolchain: &Toolchain) -> Result<()> {
        const FIND: &str = "SELECT builds.want FROM builds JOIN wants ON wants.id = builds.want \
            WHERE builds.builder = $1 AND builds.state IN ('queued', 'leased', 'built', 'covered') \
            AND builds.wanted > $2 AND NOT EXISTS (SELECT 1 FROM heirs \
            WHERE heirs.ancestor = builds.want AND heirs.builder = $3) \
            ORDER BY wants.packages DESC, wants.id LIMIT $4";
        let find = sqlx::query(FIND).bind(&toolchain.previous);
        let find = find.bind(fs::now().seconds() - WANTED);
        let find = find.bind(&toolchain.builder).bind(AT_ONCE);
        let rows = find.fetch_all(self.database.readers()).await.doing(DOING)?;
        for row in &rows {
            let want = number(row, 0)?;
            let reader = self.database.readers().acquire().await;
            let mut reader = reader.doing(DOING)?;
            let wants = closure(&self.database, &mut reader, want).await?;
            let texts = recipe_texts(&self.database, &mut reader, &wants).await?;
            drop(reader);
            let known = toolchain.clone();
            let work = move || rewritten(&known, &wants, &texts);
            let rewritten = tokio::task::spawn_blocking(work).await.ok().flatten();
            self.note_rewritten(toolchain, want, rewritten).await?;
        }
        Ok(())
    }

    /// Gives what was rewritten the demand of what it was; what cannot be rewritten
    /// is its own heir, and is not looked at again.
    async fn note_rewritten(
        &self,
        toolchain: &Toolchain,
        want: i64,
        rewritten: Option<Rewritten>,
    ) -> Result<()> {
        let mut transaction = self.database.begin().await?;
        // It may have been named again, otherwise, since it was read.
        if !self.toolchains(&mut transaction).await?.contains(toolchain) {
            return Ok(());
        }
        let builder = &toolchain.builder;
        let mut rows = Rows::new();
        let now = fs::now().seconds();
        match rewritten {
            None => rows.push(&(want, want, builder, now)),
            Some(Rewritten { wants, of }) => {
                let ids = counter::learn(&self.database, &mut transaction, &wants).await?;
                for (hash, ancestor) in of {
                    if let Some(id) = ids.get(&hash) {
                        rows.push(&(id, ancestor, builder, now));
                    }
                }
            }
        }
        self.add_heirs(&mut transaction, rows).await?;
        transaction.commit().await.doing(DOING)
    }
}

/// A closure for another toolchain.
struct Rewritten {
    wants: Vec<Want>,
    /// The want that each hash was before.
    of: Vec<(String, i64)>,
}

/// Rewrites a closure; none if it cannot be, or if the other Cargo describes
/// profiles in other words.
fn rewritten(
    toolchain: &Toolchain,
    wants: &[Wanted],
    texts: &BTreeMap<i64, String>,
) -> Option<Rewritten> {
    let recipes = wants.iter().map(|wanted| {
        let recipe = PackageRecipe::from_toml(texts.get(&wanted.id)?).ok()?;
        let is_known = toolchain.fields.is_empty() || toolchain.fields == fields(recipe.main());
        is_known.then_some(recipe)
    });
    let recipes: Vec<PackageRecipe> = recipes.collect::<Option<_>>()?;
    let recipes = retarget(&recipes, &toolchain.tools).ok()?;
    let hashes = recipes.iter().map(|recipe| recipe.hash().to_string());
    let of = hashes.zip(wants.iter().map(|wanted| wanted.id)).collect();
    let texts: Vec<String> = recipes.iter().map(PackageRecipe::to_toml).collect();
    let wants = wanted_recipes(&texts).ok()?;
    Some(Rewritten { wants, of })
}

#[cfg(test)]
mod tests {
    use super::super::{Publishing, Rules};
    use super::*;
    use crate::service::database::Location;
    use crate::service::queue::Queue;
    use crate::substituter::Substituter;

    #[test]
    fn only_releases_are_followed() {
        let of = |release: &str| {
            Toolchain::new(Tools {
                rustc: format!("rustc {release}\nhost: x-y-z\nrelease: {release}\n"),
                cargo: "cargo".to_owned(),
                layout: "legacy".to_owned(),
            })
        };
        assert_eq!(of("1.95.0").unwrap().builder, "1.95.0-x-y-z");
        for other in ["1.96.0-nightly", "1.96.0-beta.2", "dev"] {
            assert_eq!(of(other), None);
        }
        let (version, host) = release("1.95.0-x-y-z").unwrap();
        assert_eq!((version, host), (Version::new(1, 95, 0), "x-y-z"));
    }

    /// Builds with an empty database in a folder.
    async fn builds(folder: &std::path::Path) -> Builds {
        let location = Location::File(folder.join("service.sqlite"));
        let database = crate::service::open(folder, &location).await.unwrap();
        let publishing = Publishing {
            to: Substituter::folder(folder).unwrap(),
            key: None,
            images: BTreeMap::new(),
            definitions: crate::builder::image::definitions(None).unwrap(),
        };
        let queue = Queue::open(&location).await.unwrap();
        let (rules, publishing) = (Rules::default(), publishing.into());
        Builds::new(database, queue, rules, publishing, folder).unwrap()
    }

    #[test]
    fn what_was_rewritten_for_other_words_of_a_toolchain_is_not_noted() {
        let toolchain = |cargo: &str| {
            let rustc = "rustc 1.95.0\nhost: x-y-z\nrelease: 1.95.0\n".to_owned();
            let (cargo, layout) = (cargo.to_owned(), "legacy".to_owned());
            Toolchain::new(Tools {
                rustc,
                cargo,
                layout,
            })
            .unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let builds = builds(folder.path()).await;
            for cargo in ["wrong", "right"] {
                let mut transaction = builds.database.begin().await.unwrap();
                let named = builds.note_toolchain(&mut transaction, toolchain(cargo));
                let _ = named.await.unwrap();
                transaction.commit().await.unwrap();
            }
            // The look that began with the one ends after the other was named.
            let mut noted = Vec::new();
            for cargo in ["wrong", "right"] {
                let toolchain = toolchain(cargo);
                let noting = builds.note_rewritten(&toolchain, 7, None);
                noting.await.unwrap();
                let count = sqlx::query("SELECT COUNT(*) FROM heirs");
                let count = count.fetch_one(builds.database.readers()).await.unwrap();
                noted.push(number(&count, 0).unwrap());
            }
            assert_eq!(noted, [0, 1]);
        });
    }

    #[test]
    fn nothing_is_rewritten_for_a_cargo_with_other_fields_of_profiles() {
        let text = "format = 1\nname = \"a\"\nversion = \"1.0.0\"\n\
            source = \"registry+https://github.com/rust-lang/crates.io-index\"\n\
            [toolchain]\nrustc = \"old\"\ncargo = \"old\"\nlayout = \"legacy\"\n\
            [[unit]]\nkind = \"lib\"\ntarget = \"a\"\ncrate-types = [\"lib\"]\n\
            edition = \"2021\"\nfeatures = []\nplatform = \"p\"\n\
            [unit.profile]\ndebuginfo = \"0\"\nopt_level = \"0\"\n";
        let wants = [Wanted {
            id: 7,
            hash: String::new(),
            name: "a".to_owned(),
            version: "1.0.0".to_owned(),
            needs: Vec::new(),
        }];
        let texts = BTreeMap::from([(7, text.to_owned())]);
        let with = |fields: &str| {
            let toolchain = Toolchain {
                builder: String::new(),
                tools: Tools {
                    rustc: "new".to_owned(),
                    cargo: "new".to_owned(),
                    layout: "legacy".to_owned(),
                },
                fields: fields.to_owned(),
                previous: String::new(),
            };
            rewritten(&toolchain, &wants, &texts)
        };
        assert!(with("opt_level panic").is_none());
        assert!(with("opt_level").is_some());
        let of = with("").unwrap().of;
        assert_eq!(
            (of.len(), of[0].1),
            (1, 7),
            "nothing is known of its fields"
        );
    }
}
