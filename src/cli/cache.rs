//! `quickbuild cache …`: what substituters answered.

use std::process::ExitCode;

use serde::Serialize;

use super::arguments::{CacheCommand, Format};
use super::terminal::{print_json, print_line};
use super::{Exit, Failure, Surroundings};
use crate::store::Store;
use crate::substitute::cache::{
    ABSENCE_LIFETIME, DOCUMENT_LIFETIME, INFO_LIFETIME, OUTAGE_LIFETIME, clear, kept,
};

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    substituter: String,
    documents: usize,
    absent: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    outage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out_for_seconds: Option<u64>,
}

pub(super) fn run(surroundings: &Surroundings, command: CacheCommand) -> Result<ExitCode, Failure> {
    let store = Store::open(&surroundings.config()?.store)?;
    match command {
        CacheCommand::Clear => {
            clear(&store)?;
            print_line("All answers of substituters are forgotten.");
        }
        CacheCommand::Show { format } => show(&store, format)?,
    }
    Ok(Exit::Success.into())
}

fn show(store: &Store, format: Format) -> Result<(), Failure> {
    let reports = kept(store)?.into_iter().map(|kept| {
        let (outage, left) = kept.outage.unzip();
        Report {
            substituter: kept.place,
            documents: kept.documents,
            absent: kept.absent,
            outage,
            left_out_for_seconds: left.map(|left| left.as_secs()),
        }
    });
    let reports: Vec<Report> = reports.collect();
    if format == Format::Json {
        print_json(&reports);
        return Ok(());
    }
    for report in &reports {
        print_line(&format!(
            "{}: {} documents, {} known to be absent",
            report.substituter, report.documents, report.absent
        ));
        if let (Some(reason), Some(seconds)) = (&report.outage, report.left_out_for_seconds) {
            print_line(&format!("  left out for {seconds} s: {reason}"));
        }
    }
    print_line(&format!(
        "Answers count for {} s, absences for {} s, what a substituter says of itself for {} s; \
         one that failed is left out for {} s.",
        DOCUMENT_LIFETIME.as_secs(),
        ABSENCE_LIFETIME.as_secs(),
        INFO_LIFETIME.as_secs(),
        OUTAGE_LIFETIME.as_secs()
    ));
    Ok(())
}
