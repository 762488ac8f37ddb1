//! A report as lines for a terminal.

use std::fmt::Write as _;

use super::report::Report;
use crate::console::percent;

/// Trees and crates that are shown.
const SHOWN: usize = 10;

/// The report in words.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, report);
    text
}

fn write(text: &mut String, report: &Report) -> std::fmt::Result {
    let counted = &report.counted;
    writeln!(
        text,
        "{} lock files of {} repositories: {} packages, {} of them with trees that others could have, {} different trees.",
        counted.projects,
        counted.repositories,
        counted.packages,
        counted.shareable,
        counted.distinct_trees
    )?;
    match &counted.platform {
        Some(platform) => writeln!(
            text,
            "They are those for {platform}, as far as known: the registry's index is at hand for {} of the packages{}.",
            counted.placed,
            if counted.placed * 10 < counted.packages * 9 {
                "; `--lookup` asks for the rest"
            } else {
                ""
            }
        )?,
        None => writeln!(text, "They are those of all platforms.")?,
    }
    let costs = &report.costs;
    writeln!(
        text,
        "Seconds are measured for {} packages, taken from another version for {}, estimated for {}.",
        costs.measured, costs.other_version, costs.estimated
    )?;
    match &costs.error {
        Some(error) => writeln!(text, "{error}")?,
        None => writeln!(
            text,
            "Too little was measured to estimate the rest; compile some projects with `quickbuild build` first, or pass `--timings`."
        )?,
    }
    let sharing = &report.sharing;
    writeln!(text, "\nCommodity and niche")?;
    writeln!(
        text,
        "  {} of all packages have a tree that another repository has, too; by compile seconds it is {}.\n  {} have a version that another repository has, whatever is below it.",
        percent(sharing.packages),
        percent(sharing.seconds),
        percent(sharing.versions)
    )?;
    writeln!(
        text,
        "\nWhat a budget covers        (share of the {:.0} s of all different trees)",
        costs.distinct_seconds
    )?;
    writeln!(
        text,
        "  {:>8} {:>14} {:>14}",
        "budget", "seen projects", "unseen ones"
    )?;
    for point in &report.coverage {
        writeln!(
            text,
            "  {:>8} {:>14} {:>14}",
            percent(point.budget),
            percent(point.seen),
            percent(point.unseen)
        )?;
    }
    if !report.bundles.is_empty() {
        writeln!(
            text,
            "\nWho can have a package's whole tree from few builds"
        )?;
        writeln!(
            text,
            "  {:<14} {:>8} {:>6} {:>11} {:>11} {:>11} {:>11} {:>11}",
            "package",
            "projects",
            "trees",
            "best one",
            "best ten",
            "unseen: one",
            "ten",
            "aligned ten"
        )?;
        for reach in &report.bundles {
            writeln!(
                text,
                "  {:<14} {:>8} {:>6} {:>11} {:>11} {:>11} {:>11} {:>11}",
                reach.package,
                reach.projects,
                reach.trees,
                percent(reach.exact.one),
                percent(reach.exact.ten),
                percent(reach.exact_unseen.one),
                percent(reach.exact_unseen.ten),
                percent(reach.aligned_unseen.ten)
            )?;
        }
    }
    if let Some(alignment) = &report.alignment {
        writeln!(
            text,
            "\nAfter moving to what is prebuilt, by the registry's index, on projects not looked at\n  \
            {} of the seconds of all trees prebuild {} of theirs as they are, and {} after {:.0} packages of each have moved.",
            percent(alignment.budget),
            percent(alignment.before),
            percent(alignment.after),
            alignment.moves
        )?;
        for (tier, shares) in &alignment.tiers {
            writeln!(
                text,
                "  of tier {tier}: {} as they are, {} afterwards",
                percent(shares.before),
                percent(shares.after)
            )?;
        }
        for reached in &alignment.bundles {
            writeln!(
                text,
                "  {:<14} whole tree from one: {:>8}, from ten: {:>8}",
                reached.package,
                percent(reached.one),
                percent(reached.ten)
            )?;
        }
    }
    writeln!(text, "\nShared trees of the most value")?;
    for top in report.top.iter().take(SHOWN) {
        writeln!(
            text,
            "  {:<32} {:>4} packages {:>7.1} s {:>4} repositories  {}",
            top.name, top.size, top.seconds, top.repositories, top.tree
        )?;
    }
    writeln!(text, "\nCrates by the repositories that have them")?;
    for drift in report.crates.iter().take(SHOWN) {
        writeln!(
            text,
            "  {:<24} {:>4} repositories {:>4} versions {:>5} trees, the most common in {}",
            drift.name,
            drift.repositories,
            drift.versions,
            drift.trees,
            percent(drift.largest)
        )?;
    }
    if let Some(selection) = &report.selection {
        writeln!(
            text,
            "\nUnder the budget: {} trees, {:.0} s to build, {:.1} MB, save {} of all compile seconds.",
            selection.trees.len(),
            selection.build_seconds,
            selection.bytes / 1e6,
            percent(selection.saved)
        )?;
    }
    if let Some(recipes) = &report.recipes {
        writeln!(
            text,
            "\nBy recipes, of {} workspaces that were planned\n  {} packages, {} different recipes: another repository has the recipe of {}, and the version of {}.",
            recipes.workspaces,
            recipes.packages,
            recipes.distinct,
            percent(recipes.shared),
            percent(recipes.versions)
        )?;
        for varied in &recipes.most {
            writeln!(text, "  {:<40} {} recipes", varied.package, varied.recipes)?;
        }
    }
    for history in &report.history {
        writeln!(
            text,
            "\nWhat is left of {}, by {} versions over {} days",
            history.path, history.versions, history.days
        )?;
        for point in &history.points {
            writeln!(
                text,
                "  after {:>4} days {:>8} of the trees, {:>8} of the seconds ({} samples)",
                point.days,
                percent(point.trees),
                percent(point.seconds),
                point.samples
            )?;
        }
    }
    if !report.left_out.is_empty() {
        writeln!(text, "\n{} files were left out:", report.left_out.len())?;
        for left in &report.left_out {
            writeln!(text, "  {}: {}", left.path, left.reason)?;
        }
    }
    Ok(())
}
