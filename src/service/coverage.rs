//! How much of what was asked for was prebuilt, a day at a time.
//!
//! Nothing is kept for it: sums of reports have a day, and a build has the second
//! in which it was queued and the one in which it was published. So no day is
//! missing, and each says the same whenever it is asked for; but where a large
//! build fails, what it would have made as well counts from when it is queued by
//! itself.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::Row as _;

use super::database::{Database, Doing as _, Result};
use super::demand::Sums;
use crate::fs;

/// What is being done, for errors.
const DOING: &str = "tell what was prebuilt";
/// Days that are told, today included.
pub(super) const DAYS: i64 = 30;
/// Seconds of a day.
const SECONDS: i64 = 86_400;

/// What was prebuilt at the end of a day; today, until now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Day {
    /// Days since 1970.
    pub day: i64,
    /// Units of this day's reports that were not compiled.
    pub hits: i64,
    /// Units of them that were.
    pub misses: i64,
    /// Milliseconds of compiling that hits saved.
    pub milliseconds_saved: i64,
    /// Milliseconds of compiling that misses cost.
    pub milliseconds_compiled: i64,
    /// Recipes that enough had wanted by then.
    pub wanted: i64,
    /// Those of them that were published by then.
    pub published: i64,
}

impl Day {
    /// Share of units that were hits; none where no unit was reported.
    pub fn units(&self) -> Option<f64> {
        share(self.hits, self.hits + self.misses)
    }

    /// Share of the seconds of all units that were those of hits.
    pub fn seconds(&self) -> Option<f64> {
        let (saved, compiled) = (self.milliseconds_saved, self.milliseconds_compiled);
        share(saved, saved + compiled)
    }

    /// Share of the wanted recipes that were published.
    pub fn recipes(&self) -> Option<f64> {
        share(self.published, self.wanted)
    }
}

fn share(part: i64, whole: i64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The last days, the last one first, from the first one on of which anything is
/// known. `sums` are those of days with reports.
pub async fn days(database: &Database, sums: &[Sums]) -> Result<Vec<Day>> {
    let today = fs::now().seconds() / SECONDS;
    let first = today - DAYS + 1;
    // All that was before comes as one row.
    const WANTED: &str = "SELECT CASE WHEN since < $1 THEN 0 ELSE since / 86400 END, COUNT(*) \
        FROM builds WHERE own = 1 GROUP BY 1";
    const PUBLISHED: &str = "SELECT CASE WHEN ended < $1 THEN 0 ELSE ended / 86400 END, COUNT(*) \
        FROM builds WHERE state = 'built' AND own = 1 GROUP BY 1";
    let wanted = by_day(database, WANTED, first).await?;
    let published = by_day(database, PUBLISHED, first).await?;
    Ok(told(first, today, sums, &wanted, &published))
}

async fn by_day(
    database: &Database,
    statement: &'static str,
    first: i64,
) -> Result<BTreeMap<i64, i64>> {
    let query = sqlx::query(statement).bind(first * SECONDS);
    let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
    let counts = rows.iter().map(|row| {
        let number = |column: usize| row.try_get::<i64, _>(column).doing(DOING);
        Ok((number(0)?, number(1)?))
    });
    counts.collect()
}

/// The days of what was counted; of recipes, what each day added.
fn told(
    first: i64,
    today: i64,
    sums: &[Sums],
    wanted: &BTreeMap<i64, i64>,
    published: &BTreeMap<i64, i64>,
) -> Vec<Day> {
    let until = |counts: &BTreeMap<i64, i64>, day| -> i64 {
        counts.range(..=day).map(|(_, count)| *count).sum()
    };
    let days = (first..=today).map(|day| {
        let sums = sums.iter().find(|sums| sums.day == day);
        let sums = sums.copied().unwrap_or_default();
        Day {
            day,
            hits: sums.hits,
            misses: sums.misses,
            milliseconds_saved: sums.milliseconds_saved,
            milliseconds_compiled: sums.milliseconds_compiled,
            wanted: until(wanted, day),
            published: until(published, day),
        }
    });
    let is_empty = |day: &Day| {
        let none = Day {
            day: day.day,
            ..Day::default()
        };
        *day == none
    };
    let mut days: Vec<Day> = days.skip_while(is_empty).collect();
    days.reverse();
    days
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_day_has_all_that_was_wanted_and_published_by_then() {
        let sums = |day, hits, misses| Sums {
            day,
            hits,
            misses,
            milliseconds_saved: hits * 1_000,
            milliseconds_compiled: misses * 3_000,
            ..Sums::default()
        };
        let wanted = BTreeMap::from([(0, 1), (102, 3)]);
        let published = BTreeMap::from([(101, 1), (103, 2)]);
        let reported = [sums(104, 0, 0), sums(102, 3, 1), sums(70, 1, 1)];
        let days = told(100, 104, &reported, &wanted, &published);
        let by_day =
            |of: fn(&Day) -> Option<f64>| -> Vec<Option<f64>> { days.iter().map(of).collect() };
        let names: Vec<i64> = days.iter().map(|day| day.day).collect();
        assert_eq!(names, [104, 103, 102, 101, 100]);
        let none = None;
        assert_eq!(by_day(Day::units), [none, none, Some(0.75), none, none]);
        assert_eq!(by_day(Day::seconds), [none, none, Some(0.5), none, none]);
        let recipes = [0.75, 0.75, 0.25, 1.0, 0.0].map(Some);
        assert_eq!(by_day(Day::recipes), recipes);
    }

    #[test]
    fn days_begin_with_the_first_that_has_anything() {
        let nothing = BTreeMap::new();
        assert!(told(100, 104, &[], &nothing, &nothing).is_empty());
        let wanted = BTreeMap::from([(103, 1)]);
        let days = told(100, 104, &[], &wanted, &nothing);
        let names: Vec<i64> = days.iter().map(|day| day.day).collect();
        assert_eq!(names, [104, 103]);
    }
}
