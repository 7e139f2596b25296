//! Many rule files to the rules that can run and what is wrong with the others.

use std::collections::HashMap;
use std::sync::Arc;

use toml::de::DeTable;

use super::document::{Table, without_mark};
use super::keys::check_file;
use super::load::{Draft, read};
use super::{FILE_BYTES_MAX, Job, Rule};
use crate::event::Schema;
use crate::lang::diagnostic::{Diagnostic, Severity, Span, code};

/// What became of a set of rule files.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The rules that can run, enabled or not, in the order of the files.
    pub rules: Vec<Arc<Rule>>,
    /// What was found in the files, faults and warnings, in the order of the files.
    pub reports: Vec<Report>,
}

/// What was found in one file.
#[derive(Clone, Debug)]
pub struct Report {
    /// The file's name.
    pub file: Arc<str>,
    /// Its text, for showing the place.
    pub text: Arc<str>,
    /// What was found; the places are in `text`.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// Whether the file gives no rule because of it.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity() == Severity::Error)
    }
}

impl Loaded {
    /// How many files have a fault.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.reports.iter().filter(|report| report.is_fault()).count()
    }

    /// Reads rule and job files. `files` are names and contents; contents that are not UTF-8 are a fault of that file.
    /// Fields that rules name below flattened ones are added to the schema.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>, schema: &mut Schema) -> Self {
        let mut loaded = Self::default();
        let mut documents = Vec::new();
        for (name, bytes) in files {
            let (file, text): (Arc<str>, Arc<str>) = (name.into(), text(bytes).into());
            match parse(bytes, &text) {
                Ok(()) => documents.push((file, text)),
                Err(diagnostics) => loaded.reports.push(Report { file, text, diagnostics }),
            }
        }
        let jobs = loaded.jobs(&documents, schema);
        let mut seen = HashMap::new();
        for (file, text) in &documents {
            loaded.rule(file, text, &jobs, &mut seen, schema);
        }
        loaded.reports.sort_by(|left, right| left.file.cmp(&right.file));
        loaded
    }

    fn report(&mut self, file: &Arc<str>, text: &Arc<str>, diagnostics: Vec<Diagnostic>) {
        if !diagnostics.is_empty() {
            self.reports.push(Report { file: file.clone(), text: text.clone(), diagnostics });
        }
    }

    fn jobs(&mut self, documents: &[(Arc<str>, Arc<str>)], schema: &mut Schema) -> HashMap<String, Arc<Job>> {
        let mut jobs = HashMap::new();
        for (file, text) in documents {
            let Ok(document) = DeTable::parse(text) else { continue };
            let mut faults = Vec::new();
            let root = Table::new(document.get_ref(), document.span().into(), "file");
            if let Some(table) = root.table("job", &mut faults)
                && let Some(job) = Job::read(text, &table, schema, &mut faults)
            {
                jobs.entry(job.id.clone()).or_insert_with(|| Arc::new(job));
            }
            self.report(file, text, faults);
        }
        jobs
    }

    fn rule(
        &mut self,
        file: &Arc<str>,
        text: &Arc<str>,
        jobs: &HashMap<String, Arc<Job>>,
        seen: &mut HashMap<String, Arc<str>>,
        schema: &mut Schema,
    ) {
        let Ok(document) = DeTable::parse(text) else { return };
        let mut faults = Vec::new();
        let root = Table::new(document.get_ref(), document.span().into(), "file");
        check_file(&root, &mut faults);
        if root.value("rule").is_none() && root.value("job").is_none() {
            faults.push(root.missing("rule"));
        }
        if let Some(table) = root.table("rule", &mut faults) {
            let job = |id: &str| jobs.get(id).cloned();
            match read(file, text, &table, schema, &job, &mut faults) {
                Some(Draft { rule, id_span }) => match seen.get(&rule.id) {
                    Some(first) => {
                        let message =
                            format!("the rule_id {:?} is that of the rule in {first} already", rule.id);
                        faults.push(Diagnostic::new(code::DUPLICATE_ID, id_span, message));
                    }
                    None => {
                        seen.insert(rule.id.clone(), file.clone());
                        self.rules.push(Arc::new(rule));
                    }
                },
                None => debug_assert!(!faults.is_empty(), "a rule that is refused says why"),
            }
        }
        self.report(file, text, faults);
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    without_mark(&String::from_utf8_lossy(&bytes[..bytes.len().min(FILE_BYTES_MAX)])).into_owned()
}

/// Whether a file is a TOML document at all.
pub(super) fn parse(bytes: &[u8], text: &str) -> Result<(), Vec<Diagnostic>> {
    let fault = |span, message: String| vec![Diagnostic::new(code::BAD_FILE, span, message)];
    if bytes.len() > FILE_BYTES_MAX {
        let message = format!("the file is {} bytes long; at most {FILE_BYTES_MAX} are read", bytes.len());
        return Err(fault(Span::new(0, 1), message));
    }
    if let Err(error) = std::str::from_utf8(bytes) {
        let at = error.valid_up_to();
        return Err(fault(Span::new(at, at + 1), format!("the file is not UTF-8 text from byte {at} on")));
    }
    let (_, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(());
    }
    let place = |error: &toml::de::Error| error.span().unwrap_or(0..1);
    Err(errors
        .iter()
        .map(|error| Diagnostic::new(code::BAD_TOML, place(error).into(), error.message().to_owned()))
        .collect())
}
