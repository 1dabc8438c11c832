//! Which frames may a packet socket see? A classic BPF program, written from a list of ports.
//!
//! Runs in the kernel before a frame is copied to us, so that a busy link costs nothing. Decides nothing else: what a
//! frame means is for its reader. Pure.

use super::Cast;

/// The most ports of each of the two lists: jumps of classic BPF reach 255 instructions far.
pub const MOST_PORTS: usize = 32;

// linux/bpf_common.h and linux/filter.h.
pub(super) const LOAD_WORD: u16 = 0x20;
pub(super) const LOAD_HALF: u16 = 0x28;
pub(super) const LOAD_BYTE: u16 = 0x30;
pub(super) const LOAD_HALF_AT_X: u16 = 0x48;
pub(super) const LOAD_BYTE_AT_X: u16 = 0x50;
pub(super) const LOAD_X_HEADER_LENGTH: u16 = 0xb1;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_SET: u16 = 0x45;
const RETURN: u16 = 0x06;
/// `SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT`: is there a VLAN tag that was taken off the bytes?
pub(super) const VLAN_TAG_PRESENT: u32 = 0xffff_f000_u32.wrapping_add(48);

/// Takes all of a frame.
const WHOLE: u32 = 0x0004_0000;

/// One instruction, as `struct sock_filter` has it.
pub(super) type Instruction = libc::sock_filter;

/// A step; where a jump goes is known when all steps are.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Do(u16, u32),
    /// Goes on if equal, refuses otherwise.
    Demand(u32),
    /// Goes on if none of the bits is set, refuses otherwise.
    Forbid(u32),
    /// Takes the frame if equal, goes on otherwise.
    Take(u32),
    /// Skips this many steps unless equal.
    SkipUnless(u32, u8),
    /// Goes on if one of the bits is set, refuses otherwise.
    DemandBit(u32),
    Refuse,
}

/// The program that takes untagged, unfragmented UDP over IPv4 and IPv6 (without extension headers) with one of
/// `to` as destination port or one of `from` as source port. Ports past [`MOST_PORTS`] of a list are left out.
pub(super) fn program(to: &[u16], from: &[u16], cast: Cast) -> Vec<Instruction> {
    let mut steps = vec![Step::Do(LOAD_WORD, VLAN_TAG_PRESENT), Step::Forbid(u32::MAX)];
    match cast {
        Cast::Any => {}
        Cast::Group => steps.extend([Step::Do(LOAD_BYTE, 0), Step::DemandBit(1)]),
        Cast::Unicast => steps.extend([Step::Do(LOAD_BYTE, 0), Step::Forbid(1)]),
    }
    let four = [
        Step::Do(LOAD_BYTE, 23),
        Step::Demand(17),
        Step::Do(LOAD_HALF, 20),
        // An offset, or "more fragments".
        Step::Forbid(0x3fff),
        Step::Do(LOAD_X_HEADER_LENGTH, 14),
    ];
    let four: Vec<Step> = four.into_iter().chain(ports(LOAD_HALF_AT_X, 14, to, from)).collect();
    let six = [Step::Do(LOAD_BYTE, 20), Step::Demand(17)].into_iter().chain(ports(LOAD_HALF, 54, to, from));
    let past = u8::try_from(four.len()).unwrap_or(u8::MAX);
    steps.extend([Step::Do(LOAD_HALF, 12), Step::SkipUnless(0x0800, past)]);
    steps.extend(four);
    // Whoever comes here after the IPv4 steps was refused by their last one.
    steps.push(Step::Demand(0x86dd));
    steps.extend(six);
    assemble(&steps)
}

/// The program that takes every frame of this cast, cut after `most` bytes.
pub(super) fn everything(most: u32, cast: Cast) -> Vec<Instruction> {
    let mut steps = match cast {
        Cast::Any => vec![instruction(RETURN, 0, 0, most)],
        Cast::Group => vec![instruction(LOAD_BYTE, 0, 0, 0), instruction(JUMP_IF_SET, 0, 1, 1)],
        Cast::Unicast => vec![instruction(LOAD_BYTE, 0, 0, 0), instruction(JUMP_IF_SET, 1, 0, 1)],
    };
    if cast != Cast::Any {
        steps.extend([instruction(RETURN, 0, 0, most), instruction(RETURN, 0, 0, 0)]);
    }
    steps
}

/// Reads the ports at `at` (source) and `at + 2` (destination), takes the frame if one is listed, refuses it otherwise.
fn ports(load: u16, at: u32, to: &[u16], from: &[u16]) -> impl Iterator<Item = Step> {
    let list = |at: u32, ports: &[u16]| {
        let takes: Vec<Step> = ports.iter().take(MOST_PORTS).map(|port| Step::Take(u32::from(*port))).collect();
        (!takes.is_empty()).then_some(Step::Do(load, at)).into_iter().chain(takes)
    };
    list(at + 2, to).chain(list(at, from)).chain([Step::Refuse])
}

/// Makes instructions of steps, with the two ends "refuse" and "take" behind them.
pub(super) fn assemble(steps: &[Step]) -> Vec<Instruction> {
    let refuse = steps.len();
    let distance = |from: usize, to: usize| u8::try_from(to - from - 1).unwrap_or(u8::MAX);
    let one = |(at, step): (usize, &Step)| {
        let (no, yes) = (distance(at, refuse), distance(at, refuse + 1));
        match *step {
            Step::Do(code, k) => instruction(code, 0, 0, k),
            Step::Demand(k) => instruction(JUMP_IF_EQUAL, 0, no, k),
            Step::Forbid(k) => instruction(JUMP_IF_SET, no, 0, k),
            Step::DemandBit(k) => instruction(JUMP_IF_SET, 0, no, k),
            Step::Take(k) => instruction(JUMP_IF_EQUAL, yes, 0, k),
            Step::SkipUnless(k, past) => instruction(JUMP_IF_EQUAL, 0, past, k),
            Step::Refuse => instruction(RETURN, 0, 0, 0),
        }
    };
    let ends = [instruction(RETURN, 0, 0, 0), instruction(RETURN, 0, 0, WHOLE)];
    steps.iter().enumerate().map(one).chain(ends).collect()
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_program_still_reaches_its_ends() {
        let ports: Vec<u16> = (1..=40).collect();
        let program = program(&ports, &ports, Cast::Group);
        assert!(program.len() < 256, "{}", program.len());
        for (at, each) in program.iter().enumerate().filter(|(_, each)| each.code & 7 == 5) {
            let farthest = at + 1 + usize::from(each.jt.max(each.jf));
            assert!(farthest < program.len(), "{at}");
        }
    }

    #[test]
    fn an_empty_list_takes_nothing_by_it() {
        let program = program(&[5353], &[], Cast::Any);
        assert_eq!(program.iter().filter(|each| each.code == JUMP_IF_EQUAL && each.k == 5353).count(), 2);
    }
}
