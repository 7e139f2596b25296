//! An agent that is started again says for how long nobody looked.

use std::time::Duration;

use jiff::Timestamp;
use lapwing_stage::Alert;

use crate::stage;

const LOST: &str = "Telemetry lost";
/// How long after the agent's own account of it a kill may have been: it remembers now and then.
const REMEMBERED: Duration = Duration::from_secs(11);

fn time(alert: &Alert, pointer: &str) -> Timestamp {
    alert.text(pointer).parse().expect("a time")
}

#[test]
fn a_restart_is_told_with_the_time_in_which_nobody_looked() {
    let mut stage = stage();
    let down = std::time::Duration::from_millis(1500);
    for is_killed in [false, true] {
        let mark = stage.agent.mark();
        let before = Timestamp::now();
        if is_killed {
            stage.agent.kill().expect("a kill");
        } else {
            stage.agent.stop().expect("an end");
        }
        let ended = Timestamp::now();
        std::thread::sleep(down);
        let starts = Timestamp::now();
        stage.agent.start_again().expect("an agent");
        let is_it = |alert: &Alert| alert.rule() == LOST && !alert.text("/event/start").is_empty();
        let alert = stage.agent.wait_for("that nobody looked", mark, is_it).expect("an alert");
        let (from, to) = (time(&alert, "/event/start"), time(&alert, "/event/end"));
        let slack = if is_killed { REMEMBERED } else { Duration::ZERO };
        assert!(from >= before - slack && from <= ended, "{before} {from} {ended}");
        assert!(to >= starts && to <= Timestamp::now(), "{starts} {to}");
        let reason = alert.text("/event/reason");
        assert!(reason.starts_with("the sensor was down between "), "{reason}");
        assert!(stage.agent.log().contains("the sensor was down between "), "{}", stage.agent.log());
        let status = stage.agent.status().expect("a status");
        let told = status.pointer("/lanes/0/source/down/from").and_then(serde_json::Value::as_str);
        assert_eq!(told, Some(alert.text("/event/start")));
    }
}

#[test]
fn a_first_start_tells_nothing() {
    let stage = stage();
    let status = stage.agent.status().expect("a status");
    assert_eq!(status.pointer("/lanes/0/source/down"), Some(&serde_json::Value::Null));
    assert!(stage.agent.alerts().expect("the log").iter().all(|alert| alert.rule() != LOST));
}
