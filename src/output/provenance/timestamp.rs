//! Times as RFC 3339 writes them, in UTC and whole seconds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fs::Time;

const DAY: i64 = 86_400;
/// 0000-01-01 00:00:00 and 9999-12-31 23:59:59: the years of RFC 3339.
const RANGE: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

/// A second, printed as `2025-01-01T00:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Text that is no time in this form.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a time such as `2025-01-01T00:00:00Z`")]
pub struct ParseTimestampError {
    text: String,
}

impl Timestamp {
    /// The time so many seconds after 1970; `None` outside the years 0 to 9999.
    pub fn from_seconds(seconds: i64) -> Option<Self> {
        RANGE.contains(&seconds).then_some(Self(seconds))
    }

    /// The time of this machine's clock, within the years that can be written.
    pub fn of(time: Time) -> Self {
        Self(time.seconds().clamp(*RANGE.start(), *RANGE.end()))
    }

    /// Seconds since 1970.
    pub fn seconds(self) -> i64 {
        self.0
    }
}

/// The days since 1970 of a day of the Gregorian calendar; years begin in March
/// here, so that the leap day is a year's last (Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms").
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day; the inverse of [`days`].
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date(self.0.div_euclid(DAY));
        let second = self.0.rem_euclid(DAY);
        let (hour, minute) = (second / 3_600, second / 60 % 60);
        let second = second % 60;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
        let parse = || {
            let day = days(number(0..4)?, number(5..7)?, number(8..10)?);
            let second = number(11..13)? * 3_600 + number(14..16)? * 60 + number(17..19)?;
            let time = Self::from_seconds(day * DAY + second)?;
            // Signs, other separators, a 30 February: none is printed so.
            (time.to_string() == text).then_some(time)
        };
        parse().ok_or_else(|| ParseTimestampError {
            text: text.to_owned(),
        })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times_are_printed() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (*RANGE.start(), "0000-01-01T00:00:00Z"),
            (*RANGE.end(), "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Timestamp::from_seconds(seconds).unwrap().to_string(), text);
            assert_eq!(text.parse::<Timestamp>().unwrap().seconds(), seconds);
        }
        assert_eq!(Timestamp::from_seconds(RANGE.end() + 1), None);
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "2025-01-01",
            "2025-01-01T00:00:00",
            "2025-01-01 00:00:00Z",
            "2025-01-01T00:00:00+00:00",
            "2025-01-01T00:00:00.5Z",
            "2025-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-00-01T00:00:00Z",
            "2025-01-01T24:00:00Z",
            "2025-01-01T00:00:60Z",
            "2025-1-001T00:00:00Z",
            "+025-01-01T00:00:00Z",
            "2025-01-01T00:00:00Zz",
            "2025-01-0éT00:00:00Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parse_is_the_inverse_of_print(seconds in RANGE) {
            let time = Timestamp::from_seconds(seconds).unwrap();
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }
    }
}
