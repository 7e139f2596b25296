//! Loads a set of rule files: the valid rules, and the diagnostics of all files.

use std::collections::HashMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeTable;

use super::allow::take_allowed;
use super::document::DocumentTable;
use super::file::{Report, SourceFile};
use super::keys::{check_endpoint_file, check_file};
use super::load::{Draft, is_endpoint, read, read_endpoint};
use super::{Job, Rule};
use crate::event::Schema;
use crate::lang::diagnostic::{Diagnostic, code};

/// A file with its TOML document.
type Document<'a> = (&'a SourceFile, Spanned<DeTable<'a>>);

/// The rules and diagnostics of a set of rule files.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The valid rules, enabled or not, in the order of the files.
    pub rules: Vec<Arc<Rule>>,
    /// The errors and warnings, in the order of the files.
    pub reports: Vec<Report>,
}

impl Loaded {
    /// How many files have an error.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.reports.iter().filter(|report| report.is_fault()).count()
    }

    /// Reads rule and job files. `files` are names and contents; at most [`FILE_BYTES_MAX`] and one byte of each
    /// content are needed. An invalid file does not affect the others. Fields that rules name below flattened ones are
    /// added to the schema.
    ///
    /// [`FILE_BYTES_MAX`]: super::FILE_BYTES_MAX
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>, schema: &mut Schema) -> Self {
        let mut loaded = Self::default();
        let sources: Vec<_> = files.into_iter().map(|(name, bytes)| SourceFile::new(name, bytes)).collect();
        let mut documents = Vec::new();
        for source in &sources {
            match source.parse() {
                Ok(document) => documents.push((source, document)),
                Err(diagnostics) => loaded.reports.extend(source.report(diagnostics)),
            }
        }
        let jobs = loaded.jobs(&documents, schema);
        let mut seen = HashMap::new();
        for (source, document) in &documents {
            loaded.rule(source, document, &jobs, &mut seen, schema);
        }
        loaded.reports.sort_by(|left, right| left.file.cmp(&right.file));
        // The errors of a file's job and of its rule are found at different times.
        loaded.reports.dedup_by(|later, report| {
            let is_same = later.file == report.file;
            if is_same {
                report.diagnostics.append(&mut later.diagnostics);
            }
            is_same
        });
        loaded.reports.iter_mut().for_each(Report::shorten);
        loaded
    }

    /// Records that a file could not be read, and why.
    pub fn unreadable(&mut self, file: &str, why: &str) {
        self.reports.push(Report::unreadable(file, why));
        self.reports.sort_by(|left, right| left.file.cmp(&right.file));
    }

    fn jobs(&mut self, documents: &[Document<'_>], schema: &mut Schema) -> HashMap<String, Arc<Job>> {
        let mut jobs = HashMap::new();
        for (source, document) in documents {
            let mut faults = Vec::new();
            let root = DocumentTable::new(document.get_ref(), document.span().into(), "file");
            if let Some(table) = root.table("job", &mut faults)
                && let Some(job) = Job::read(&source.text, &table, schema, &mut faults)
            {
                jobs.entry(job.id.clone()).or_insert_with(|| Arc::new(job));
            }
            self.reports.extend(source.report(faults));
        }
        jobs
    }

    fn rule(
        &mut self,
        source: &SourceFile,
        document: &Spanned<DeTable<'_>>,
        jobs: &HashMap<String, Arc<Job>>,
        seen: &mut HashMap<String, Arc<str>>,
        schema: &mut Schema,
    ) {
        let mut faults = Vec::new();
        let root = DocumentTable::new(document.get_ref(), document.span().into(), "file");
        let table = root.table("rule", &mut faults);
        let of_endpoint = table.as_ref().is_some_and(is_endpoint);
        if of_endpoint {
            check_endpoint_file(&root, &mut faults)
        } else {
            check_file(&root, &mut faults)
        }
        if root.value("rule").is_none() && root.value("job").is_none() {
            faults.push(root.missing("rule"));
        }
        if let Some(table) = table {
            let job = |id: &str| jobs.get(id).cloned();
            let draft = if of_endpoint {
                read_endpoint(&source.file, &source.text, (&root, &table), schema, &mut faults)
            } else {
                read(&source.file, &source.text, &table, schema, &job, &mut faults)
            };
            match draft {
                Some(Draft { rule, id_span }) => match seen.get(&rule.id) {
                    Some(first) => {
                        let message =
                            format!("the rule_id {:?} is that of the rule in {first} already", rule.id);
                        faults.push(Diagnostic::new(code::DUPLICATE_ID, id_span, message));
                    }
                    None => {
                        seen.insert(rule.id.clone(), source.file.clone());
                        self.rules.push(Arc::new(rule));
                    }
                },
                None => debug_assert!(!faults.is_empty(), "a rule that is refused says why"),
            }
        }
        take_allowed(&root, &mut faults);
        self.reports.extend(source.report(faults));
    }
}
