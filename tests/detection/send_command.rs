//! The packaged AWS command line, and a program of the same name; once in seven days per host, across restarts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use lapwing_stage::pypi::{AWS, Environment};
use lapwing_stage::{Agent, skipped};

use crate::reverse_shell::end;
use crate::{PATIENCE, Stage, agent, stage};

const RULE: &str = "AWS SSM `SendCommand` with Run Shell Command Parameters";

const ARGUMENTS: [&str; 10] = [
    "ssm",
    "send-command",
    "--instance-ids",
    "i-0123456789abcdef0",
    "--document-name",
    "AWS-RunShellScript",
    "--parameters",
    "commands=[\"id\"]",
    "--endpoint-url",
    "http://10.66.0.2:9",
];

/// The command line from PyPI, a Python script. `None` if it cannot be installed.
static COMMAND_LINE: LazyLock<Option<PathBuf>> = LazyLock::new(|| match Environment::install(AWS) {
    Ok(environment) => Some(environment.program("aws")),
    Err(error) => {
        skipped(&format!("the AWS command line cannot be installed: {error:#}"));
        None
    }
});

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_packaged_command_line_is_alerted_once_over_restarts() {
    let Some(aws) = COMMAND_LINE.as_deref() else { return };
    let stage = stage();
    let mut agent = agent();
    run(&stage, aws);
    let alert =
        agent.wait_for_within("an alert", 0, PATIENCE, |alert| alert.rule() == RULE).expect("an alert");
    let names = alert.document["process"]["name"].as_array().expect("two names");
    assert!(names[0].as_str().expect("a name").starts_with("python") && names[1] == "aws", "{names:?}");
    assert_eq!(alert.document["lapwing"]["alert"]["new_terms"][0], alert.document["host"]["id"]);

    run(&stage, aws);
    agent.stop().expect("an end");
    agent.start_again().expect("a start");
    run(&stage, aws);
    agent.kill().expect("an end");
    agent.start_again().expect("a start");
    run(&stage, aws);
    passed(&stage, &agent);
    assert_eq!(alerts(&agent), 1);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_program_named_aws_is_alerted() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("aws");
    std::fs::create_dir_all(&folder).expect("a folder");
    let aws = folder.join("aws");
    std::fs::copy("/bin/true", &aws).expect("a copy");
    let stage = stage();
    let agent = &stage.agent;
    run(&stage, &aws);
    agent.wait_for_within("an alert", 0, PATIENCE, |alert| alert.rule() == RULE).expect("an alert");
    run(&stage, &aws);
    passed(&stage, agent);
    assert_eq!(alerts(agent), 1);
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn other_commands_are_not_alerted() {
    let Some(aws) = COMMAND_LINE.as_deref() else { return };
    let stage = stage();
    let agent = &stage.agent;
    let mut arguments = ARGUMENTS;
    arguments[5] = "AWS-RunRemoteScript";
    end(command(&stage, aws).args(arguments).spawn().expect("the AWS command line"));
    passed(&stage, agent);
    assert_eq!(alerts(agent), 0);
}

fn command(stage: &Stage, aws: &Path) -> Command {
    let mut command = stage.hosts.near.command(&aws.display().to_string());
    command.envs([
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "eu-central-1"),
        ("AWS_MAX_ATTEMPTS", "1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]);
    command
}

fn run(stage: &Stage, aws: &Path) {
    end(command(stage, aws).args(ARGUMENTS).spawn().expect("the AWS command line"));
}

/// Waits until the agent has evaluated all events so far: the alert of a later reverse shell arrives after theirs.
fn passed(stage: &Stage, agent: &Agent) {
    let mark = agent.mark();
    end(stage.hosts.near.shell("bash", "openssl s_client -connect 10.66.0.2:9 </dev/null").expect("bash"));
    agent.wait_for_within("the last alert", mark, PATIENCE, |alert| alert.rule() != RULE).expect("an alert");
}

fn alerts(agent: &Agent) -> usize {
    agent.alerts().expect("the log").iter().filter(|alert| alert.rule() == RULE).count()
}
