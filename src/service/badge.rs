//! A badge: a small picture that says how much of what a project wants others
//! want, too, or is prebuilt. Pure, but for [`wants`] and [`shared`].

use sqlx::Row as _;

use super::access;
use super::counts;
use super::database::{Database, Doing as _, Result};
use super::ids;
use super::prebuilt::{Match, Row};
use crate::markup::escaped;

/// What is being done, for errors.
const DOING: &str = "tell what a project shares";
/// Characters of an owner's or a repository's name.
const NAME: usize = 64;
/// Width of a character; `textLength` sees to it that it is that wide.
const CHARACTER: usize = 7;
/// What is beside each text.
const MARGIN: usize = 6;

/// What a badge shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shows {
    /// What others want, too.
    Shared,
    /// The packages that are prebuilt for their trees.
    Prebuilt,
}

impl Shows {
    /// What a query asks for, if it is anything.
    pub(super) fn named(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("shared") => Some(Self::Shared),
            Some("prebuilt") => Some(Self::Prebuilt),
            Some(_) => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Prebuilt => "prebuilt",
        }
    }
}

/// A part of a project: none of one of which nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// What of it is shown.
    pub(super) part: usize,
    /// All that is looked at.
    pub(super) all: usize,
}

impl Share {
    /// Whole percents, rounded down: all is only said of all.
    fn percent(self) -> Option<usize> {
        (self.part * 100).checked_div(self.all)
    }
}

/// Owner and repository of a path `/badge/<owner>/<repo>.svg`, if they can be
/// the name of a token and of a project.
pub(super) fn names<'a>(owner: &'a str, file: &'a str) -> Option<(&'a str, &'a str)> {
    let project = file.strip_suffix(".svg")?;
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = |name: &str| (1..=NAME).contains(&name.len()) && name.bytes().all(is_allowed);
    (is_name(owner) && is_name(project)).then_some((owner, project))
}

/// What the last report of a project wanted, that was sent with the owner's token;
/// nothing is told of who reports without one.
pub(super) async fn wants(
    database: &Database,
    owner: &str,
    project: &str,
) -> Result<Option<Vec<i64>>> {
    const FIND: &str = "SELECT projects.wants FROM voices \
        JOIN projects ON projects.voice = voices.id \
        WHERE voices.name = $1 AND projects.project = $2";
    let query = sqlx::query(FIND);
    let query = query
        .bind(access::token_voice(owner, project))
        .bind(project);
    let row = query.fetch_optional(database.readers());
    let Some(row) = row.await.doing(DOING)? else {
        return Ok(None);
    };
    let text: String = row.try_get(0).doing(DOING)?;
    Ok(Some(ids::read(&text).unwrap_or_default()))
}

/// How much of what a project wants somebody else wants, too.
pub(super) async fn shared(database: &Database, wants: &[i64]) -> Result<Share> {
    let voices = counts::of(database, wants).await?;
    let shared = voices.values().filter(|voices| **voices > 1);
    Ok(Share {
        part: shared.count(),
        all: wants.len(),
    })
}

/// How many packages are prebuilt for their trees.
pub(super) fn prebuilt(rows: &[Row]) -> Share {
    let prebuilt = rows.iter().filter(|row| row.found == Match::Tree);
    Share {
        part: prebuilt.count(),
        all: rows.len(),
    }
}

/// The picture.
pub(super) fn picture(share: Option<Share>, shows: Shows) -> String {
    let what = shows.name();
    let (value, colour) = match share.and_then(Share::percent) {
        None => ("unknown".to_owned(), "#555"),
        Some(percent @ 0..50) => (format!("{percent} % {what}"), "#8a5a00"),
        Some(percent) => (format!("{percent} % {what}"), "#1a6b34"),
    };
    let label = "quickbuild";
    let width = |text: &str| text.chars().count() * CHARACTER;
    let (first, second) = (width(label) + 2 * MARGIN, width(&value) + 2 * MARGIN);
    let all = first + second;
    let text = |from: usize, text: &str| {
        let (x, long) = (from + MARGIN, width(text));
        let text = escaped(text);
        format!(
            "<text x=\"{x}\" y=\"14\" textLength=\"{long}\" lengthAdjust=\"spacingAndGlyphs\">{text}</text>\n"
        )
    };
    let said = escaped(&format!("{label}: {value}"));
    let texts = [text(0, label), text(first, &value)].concat();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{all}\" height=\"20\" viewBox=\"0 0 {all} 20\" role=\"img\" aria-label=\"{said}\">\n\
         <title>{said}</title>\n\
         <rect width=\"{first}\" height=\"20\" fill=\"#333\"/>\n\
         <rect x=\"{first}\" width=\"{second}\" height=\"20\" fill=\"{colour}\"/>\n\
         <g fill=\"#fff\" font-family=\"Verdana,DejaVu Sans,sans-serif\" font-size=\"11\" aria-hidden=\"true\">\n\
         {texts}</g>\n</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_says_what_it_shows() {
        let share = |part, all| picture(Some(Share { part, all }), Shows::Shared);
        let prebuilt = Share { part: 1, all: 2 };
        for (picture, said) in [
            (share(5, 8), "quickbuild: 62 % shared"),
            (share(299, 300), "quickbuild: 99 % shared"),
            (share(300, 300), "quickbuild: 100 % shared"),
            (share(0, 0), "quickbuild: unknown"),
            (picture(None, Shows::Shared), "quickbuild: unknown"),
            (
                picture(Some(prebuilt), Shows::Prebuilt),
                "quickbuild: 50 % prebuilt",
            ),
        ] {
            assert!(
                picture.contains(&format!("<title>{said}</title>")),
                "{picture}"
            );
            assert!(
                picture.contains(&format!("aria-label=\"{said}\"")),
                "{picture}"
            );
        }
    }

    #[test]
    fn names_are_names_or_nothing() {
        assert_eq!(names("octo", "a.b-c_d.svg"), Some(("octo", "a.b-c_d")));
        let long = format!("{}.svg", "a".repeat(65));
        for (owner, file) in [
            ("octo", "repo"),
            ("octo", ".svg"),
            ("", "repo.svg"),
            ("a b", "repo.svg"),
            ("octo", "<b>.svg"),
            ("octo", "a/b.svg"),
            ("octo", long.as_str()),
        ] {
            assert_eq!(names(owner, file), None, "{owner}/{file}");
        }
    }
}
