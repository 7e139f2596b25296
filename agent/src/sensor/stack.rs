//! That every kernel has room for the programs' stacks.
//!
//! A program and the functions that it calls share 512 bytes; from Linux 6.13 on each function of most programs has as
//! many of its own, so that a program that is too large for the others goes unseen there.

use std::collections::HashSet;

use aya_obj::generated::bpf_insn;
use aya_obj::{Function, Object};

use super::start::OBJECT;

/// match-proto:v3.18:include/linux/filter.h:#define MAX_BPF_STACK 512
const STACK_BYTES_MAX: usize = 512;
/// To what each function's part is rounded up.
///
/// match-proto:v4.16:kernel/bpf/verifier.c:static int check_max_stack_depth(struct bpf_verifier_env *env)
const ROUNDED_TO: usize = 32;
/// The register that points to the end of a function's stack; it is read only.
const FRAME: u8 = 10;
/// Instructions: a call, one register's value for another, and the addition of a number.
const CALL: u8 = 0x85;
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
/// The source register of a call that is to a function of the program, not to a helper.
const OWN: u8 = 1;
/// Classes of instructions: those that load from where the source points, and those that store where the target does.
const LOAD: u8 = 1;
const STORES: [u8; 2] = [2, 3];
/// What a load of 64 bits from the instruction itself takes: two places.
const LONG: u8 = 0x18;

#[test]
fn programs_and_what_they_call_have_room_on_every_kernel() {
    if OBJECT.is_empty() {
        println!("skipped: this build has no kernel programs");
        return;
    }
    let mut object = Object::parse(OBJECT).expect("an object");
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&sections).expect("calls");
    let needs = |(name, program): (&String, &aya_obj::Program)| {
        let function = &object.functions[&program.function_key()];
        (need(function, 0), name.clone())
    };
    let mut needs: Vec<_> = object.programs.iter().map(needs).collect();
    needs.sort_unstable();
    println!("bytes of stack: {needs:?}");
    assert!(needs.iter().any(|(bytes, _)| *bytes > ROUNDED_TO), "stacks are found");
    needs.retain(|(bytes, _)| *bytes > STACK_BYTES_MAX);
    assert!(
        needs.is_empty(),
        "bytes of stack, of which kernels before 6.13 have {STACK_BYTES_MAX}: {needs:?}"
    );
}

/// How many bytes the function that begins at an instruction needs, with what it calls. A program has those behind it.
fn need(program: &Function, start: usize) -> usize {
    let instructions = &program.instructions;
    let called = |index: usize| {
        let call = &instructions[index];
        let is_own = call.code == CALL && call.src_reg() == OWN;
        is_own.then(|| (index as i64 + 1 + i64::from(call.imm)) as usize)
    };
    let starts: HashSet<usize> = (0..instructions.len()).filter_map(called).collect();
    let end = (start + 1..instructions.len()).find(|index| starts.contains(index));
    let body = start..end.unwrap_or(instructions.len());
    let own = depth(&instructions[body.clone()]).max(1).next_multiple_of(ROUNDED_TO);
    own + body.filter_map(called).map(|start| need(program, start)).max().unwrap_or(0)
}

/// How far below its end a function's stack is used: what it loads and stores there, and what it makes pointers to.
fn depth(body: &[bpf_insn]) -> usize {
    let mut deepest = 0;
    let mut below =
        |bytes: i32| deepest = deepest.max(bytes.unsigned_abs() as usize * usize::from(bytes < 0));
    // Which registers were copied from that which points to the end, and nothing done with them yet.
    let mut is_copy = [false; FRAME as usize + 1];
    let mut is_second_half = false;
    for instruction in body {
        if std::mem::take(&mut is_second_half) {
            continue;
        }
        is_second_half = instruction.code == LONG;
        let (class, target) = (instruction.code & 7, usize::from(instruction.dst_reg()));
        if class == LOAD && instruction.src_reg() == FRAME
            || STORES.contains(&class) && instruction.dst_reg() == FRAME
        {
            below(i32::from(instruction.off));
        }
        if instruction.code == ADD && is_copy[target] {
            below(instruction.imm);
        }
        if !STORES.contains(&class) {
            is_copy[target] = instruction.code == MOVE && instruction.src_reg() == FRAME;
        }
    }
    deepest
}
