//! How many want each thing: counts of wants with neighbouring ids lie together
//! in one row. Pure, but for [`of`].
//!
//! A report changes some hundred counts. As rows of their own they were some
//! hundred changes of a table and its log; what is popular became known early and
//! has neighbouring ids, so that many of them are a few rows here.
//!
//! A row also has, for each kind, the number of binary digits of its largest
//! count. An index on that finds what is wanted most, and hardly ever changes.

use std::collections::{BTreeSet, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sqlx::Row as _;

use super::database::{Database, Doing as _, Result, Rows};
use super::ids;
use super::intake::Kind;

/// Counts of one row.
const TOGETHER: i64 = 64;
/// What is being done, for errors.
const DOING: &str = "tell how many want something";

/// Where the count of a want is: a row, and a place in it.
pub(super) fn place(want: i64) -> (i64, usize) {
    let place = want.rem_euclid(TOGETHER);
    (want.div_euclid(TOGETHER), place as usize)
}

/// One count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// The kind's number; 0 where there is no such want.
    pub(super) kind: i64,
    /// How many want it.
    pub(super) voices: i64,
}

impl Count {
    /// Binary digits of it.
    pub(super) fn digits(self) -> i64 {
        i64::from(64 - self.voices.max(0).leading_zeros())
    }
}

/// The counts of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block([Count; TOGETHER as usize]);

impl Default for Block {
    fn default() -> Self {
        Self([Count::default(); TOGETHER as usize])
    }
}

impl Block {
    /// Reads [`Self::text`]; what cannot be read counts as nothing.
    pub(super) fn read(text: &str) -> Self {
        let mut block = Self::default();
        let bytes = STANDARD_NO_PAD.decode(text).unwrap_or_default();
        let numbers = ids::numbers(&bytes).unwrap_or_default();
        for (count, number) in block.0.iter_mut().zip(numbers) {
            *count = Count {
                kind: number & 3,
                voices: number >> 2,
            };
        }
        block
    }

    /// As LEB128 in base64: a kind in two bits, and what is wanted above them.
    pub(super) fn text(&self) -> String {
        let mut bytes = Vec::with_capacity(self.0.len() * 2);
        let last = self.0.iter().rposition(|count| count.kind != 0);
        for count in self.0.iter().take(last.map_or(0, |last| last + 1)) {
            ids::number(
                &mut bytes,
                (count.voices.max(0) as u64) << 2 | count.kind as u64,
            );
        }
        STANDARD_NO_PAD.encode(bytes)
    }

    pub(super) fn at(&mut self, place: usize) -> &mut Count {
        &mut self.0[place]
    }

    /// The binary digits of the largest count of a kind.
    pub(super) fn digits(&self, kind: Kind) -> i64 {
        let of_kind = self.0.iter().filter(|count| count.kind == kind.number());
        of_kind.map(|count| count.digits()).max().unwrap_or(0)
    }

    /// Wants of a kind, with how many want each.
    pub(super) fn wants(self, block: i64, kind: Kind) -> impl Iterator<Item = (i64, Count)> {
        let wants = (block * TOGETHER..).zip(self.0);
        wants.filter(move |(_, count)| count.kind == kind.number())
    }
}

/// How many want each of some.
pub(super) async fn of(database: &Database, wants: &[i64]) -> Result<HashMap<i64, i64>> {
    let blocks: BTreeSet<i64> = wants.iter().map(|want| place(*want).0).collect();
    let asked: Rows = blocks.iter().map(|block| [block]).collect();
    const FIND: &str = "SELECT counts.block, counts.voices FROM {each} \
        JOIN counts ON counts.block = CAST(each.value ->> 0 AS BIGINT)";
    let query = sqlx::query(database.sql(FIND)).bind(asked.finish());
    let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
    let mut found: HashMap<i64, Block> = HashMap::new();
    for row in rows {
        let text: String = row.try_get(1).doing(DOING)?;
        found.insert(row.try_get(0).doing(DOING)?, Block::read(&text));
    }
    let mut voices = HashMap::new();
    for want in wants {
        let (block, place) = place(*want);
        let count = found.get_mut(&block).map(|block| *block.at(place));
        voices.insert(*want, count.unwrap_or_default().voices);
    }
    Ok(voices)
}

/// All of a kind that at least so many want, by their ids.
pub(super) async fn at_least(database: &Database, kind: Kind, voices: i64) -> Result<Vec<i64>> {
    let find = match kind {
        Kind::Tree => "SELECT block, voices FROM counts WHERE trees >= $1 ORDER BY block",
        Kind::Recipe => "SELECT block, voices FROM counts WHERE recipes >= $1 ORDER BY block",
        Kind::Builder => "SELECT block, voices FROM counts WHERE builders >= $1 ORDER BY block",
    };
    let least = Count { kind: 0, voices }.digits();
    let query = sqlx::query(find).bind(least);
    let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
    let mut wants = Vec::new();
    for row in rows {
        let text: String = row.try_get(1).doing(DOING)?;
        let of_kind = Block::read(&text).wants(row.try_get(0).doing(DOING)?, kind);
        let enough = of_kind.filter(|(_, count)| count.voices >= voices);
        wants.extend(enough.map(|(want, _)| want));
    }
    Ok(wants)
}

/// The most wanted of a kind by at least two, with how many want each; what has
/// as many as another comes in the order in which it became known.
pub(super) async fn top(database: &Database, kind: Kind, limit: usize) -> Result<Vec<(i64, i64)>> {
    let find = match kind {
        Kind::Tree => {
            "SELECT block, voices, trees FROM counts WHERE trees > 1 ORDER BY trees DESC LIMIT $1"
        }
        Kind::Recipe => {
            "SELECT block, voices, recipes FROM counts WHERE recipes > 1 ORDER BY recipes DESC LIMIT $1"
        }
        Kind::Builder => {
            "SELECT block, voices, builders FROM counts WHERE builders > 1 ORDER BY builders DESC LIMIT $1"
        }
    };
    // Each statement sees one moment; what is popular is mostly in few rows.
    let mut rows_at_most = 128;
    loop {
        let query = sqlx::query(find).bind(rows_at_most);
        let rows = query.fetch_all(database.readers()).await.doing(DOING)?;
        let is_all = (rows.len() as i64) < rows_at_most;
        let (mut wants, mut unseen) = (Vec::new(), 1);
        for row in rows {
            let block = row.try_get(0).doing(DOING)?;
            let text: String = row.try_get(1).doing(DOING)?;
            unseen = row.try_get::<i64, _>(2).doing(DOING)?;
            let of_kind = Block::read(&text).wants(block, kind);
            wants.extend(of_kind.filter(|(_, count)| count.voices > 1));
        }
        // Rows that were not read have nothing with more digits than the last one.
        let certain = wants.iter().filter(|(_, count)| count.digits() > unseen);
        if is_all || certain.count() >= limit {
            wants.sort_unstable_by_key(|(want, count)| (-count.voices, *want));
            wants.truncate(limit);
            let counted = wants.into_iter().map(|(want, count)| (want, count.voices));
            return Ok(counted.collect());
        }
        rows_at_most *= 16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(counts in proptest::collection::vec((0_i64..4, 0_i64..1 << 40), 64)) {
            let mut block = Block::default();
            for (place, (kind, voices)) in counts.into_iter().enumerate() {
                *block.at(place) = Count { kind, voices: if kind == 0 { 0 } else { voices } };
            }
            prop_assert_eq!(Block::read(&block.text()), block);
        }

        #[test]
        fn whatever_else_is_there_is_no_panic(text in "[A-Za-z0-9+/]{0,200}") {
            let _ = Block::read(&text).text();
        }
    }

    #[test]
    fn a_row_knows_its_largest_count_of_each_kind() {
        let mut block = Block::default();
        *block.at(3) = Count { kind: 1, voices: 7 };
        *block.at(4) = Count { kind: 1, voices: 8 };
        *block.at(5) = Count { kind: 2, voices: 1 };
        let digits = [Kind::Tree, Kind::Recipe, Kind::Builder].map(|kind| block.digits(kind));
        assert_eq!(digits, [4, 1, 0]);
        assert_eq!(place(130), (2, 2));
        let wants: Vec<i64> = block.wants(2, Kind::Tree).map(|(want, _)| want).collect();
        assert_eq!(wants, [131, 132]);
    }
}
