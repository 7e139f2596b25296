//! The hook `signal`: signals that stop or end the sensor.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::agent::field;
use crate::touch::Own;

/// Stopped and let go on: the process that did it, and for how long the sensor stood still. To go on is in order.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_sensor_that_is_stopped_says_by_whom() {
    const STOPPED_MILLIS: u64 = 700;
    let agent = Own::start();
    let pid = Pid::from_raw(i32::try_from(agent.pid()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(STOPPED_MILLIS));
    kill(pid, Signal::SIGCONT).unwrap();
    let event = agent.tampered("SIGSTOP");
    assert_eq!(field(&event, "process.pid"), std::process::id(), "{event:#}");
    let reason = field(&event, "event.reason").as_str().unwrap();
    let stood = reason.split("stood still for ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(stood.parse::<f64>().unwrap() >= STOPPED_MILLIS as f64 / 1000.0 - 0.05, "{reason}");
}
