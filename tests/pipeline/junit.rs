//! The JUnit report of rule tests.

use std::process::Command;

use quick_junit::{Report, TestCaseStatus};

use crate::{LAPWING, project};

const FAILING: &str = "
[rule]
rule_id = 'a'
name = 'Netcat'
description = 'd'
severity = 'low'
type = 'query'
query = 'event.category: process and process.name: nc'

[[test]]
name = 'it runs'
events = [{ event.category = 'process', process.name = 'nc\\u001b' }]
alerts = 1
";

#[test]
fn the_junit_report_has_every_rule_test() {
    let here = tempfile::tempdir().expect("a folder");
    std::fs::write(here.path().join("failing.toml"), FAILING).expect("a file");
    let file = here.path().join("report.xml");
    for (rules, fails) in [(here.path().to_owned(), 1), (project().join("packaging/rules"), 0)] {
        let mut command = Command::new(LAPWING);
        let status =
            command.arg("test").arg(rules).arg("--junit").arg(&file).output().expect("an end").status;
        assert_eq!(status.success(), fails == 0);
        let text = std::fs::read_to_string(&file).expect("a report");
        let report = Report::deserialize_from_str(&text).expect("JUnit's XML");
        let cases: Vec<_> = report.test_suites.iter().flat_map(|suite| &suite.test_cases).collect();
        let failed =
            |case: &&&quick_junit::TestCase| matches!(case.status, TestCaseStatus::NonSuccess { .. });
        assert_eq!(cases.iter().filter(failed).count(), fails, "{text}");
        assert!(cases.len() > fails || fails == 1);
        assert_eq!(text.contains("process.name in (&quot;nc&quot;)"), fails == 1, "{text}");
    }
}
