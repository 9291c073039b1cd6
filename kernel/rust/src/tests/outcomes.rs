// SPDX-License-Identifier: GPL-2.0-only
//! Questions, and the outcome of a probe.

use super::*;

#[test]
fn memory_that_the_cpu_can_not_reach_is_refused() {
    let state = probed(BASE, 96 * GIB);
    let end = BASE + 96 * GIB;
    let served = (OUTCOME_SERVE, String::new());
    assert_eq!(outcome_within(&state, 0, 0, end - 1), served);
    let (verdict, text) = outcome_within(&state, 0, 1 << 4, end - 2);
    assert_eq!(verdict, negative(Errno::EOVERFLOW));
    assert!(
        text.contains("at 0x59c0000000 ends beyond 0x59fffffffe"),
        "{text}"
    );
}

#[test]
fn questions_come_in_order_and_end() {
    let mut names = Vec::new();
    let mut question: Question = zero();
    while unsafe { varia_question(names.len() as u32, &mut question) } == 0 {
        let end = question
            .name
            .iter()
            .position(|byte| *byte == 0)
            .expect("a NUL");
        let name = String::from_utf8(question.name[..end].to_vec()).expect("text");
        names.push((
            question.kind,
            name,
            question.vendor,
            question.id,
            question.offset,
        ));
    }
    let property = |name: &str| (QUESTION_PROPERTY, String::from(name), 0, 0, 0);
    assert_eq!(
        names,
        [
            property("nvidia,gpu-mem-base-pa"),
            property("nvidia,gpu-mem-size"),
            (QUESTION_DVSEC_OFFSET, String::new(), 0x1e98, 0, 0),
            (QUESTION_DVSEC_WORD, String::new(), 0x10de, 3, 0xa),
            (QUESTION_BAR_SIZE, String::new(), 0, 0, 0),
            (QUESTION_BAR_SIZE, String::new(), 0, 0, 2),
        ]
    );
}

#[test]
fn a_device_is_served_declined_or_refused_with_a_reason() {
    assert_eq!(
        outcome(&probed(BASE, 96 * GIB), 0),
        (OUTCOME_SERVE, String::new())
    );
    let declined = probed(BASE, 0);
    let (verdict, text) = outcome(&declined, 0);
    assert_eq!(verdict, OUTCOME_DECLINE);
    let needs_bar0 =
        [&probed(BASE, 96 * GIB), &declined].map(|state| unsafe { varia_needs_bar0(state) });
    assert_eq!(
        needs_bar0,
        [1, 0],
        "an open without the memory polls nothing"
    );
    assert!(text.contains("chip-to-chip link is down"), "{text}");
    let (verdict, text) = outcome(&probed(BASE, GIB), 0);
    assert_eq!(verdict, negative(Errno::EINVAL));
    assert!(text.contains("memory size 1 GiB"), "{text}");
    let (verdict, text) = outcome(&probed(BASE, 96 * GIB), negative(Errno::ETIME));
    assert_eq!(verdict, negative(Errno::ETIME));
    assert!(text.contains("not ready (ETIME)"), "{text}");
}

#[test]
fn strict_refuses_what_would_be_declined() {
    let answers = [
        answer(BASE),
        answer(0),
        absent(),
        absent(),
        answer(16 << 20),
    ];
    let environment = Environment {
        page_shift: 12,
        strict: 1,
        ..zero()
    };
    let mut state = zero();
    let result = unsafe { varia_probe(answers.as_ptr(), 5, &environment, &mut state) };
    assert_eq!(result, 0);
    let (verdict, text) = outcome(&state, 0);
    assert_eq!(verdict, negative(Errno::ENODEV));
    assert!(
        text.starts_with("not served: firmware reports a memory size of 0"),
        "{text}"
    );
    assert!(text.contains("the option strict"), "{text}");
}

#[test]
fn memory_that_another_part_of_the_kernel_has_claimed_is_named() {
    let (state, mut text) = (probed(BASE, 96 * GIB), [0; TEXT_LEN]);
    let (out, len) = (text.as_mut_ptr(), TEXT_LEN as u32);
    let claimed = |index| unsafe { varia_claimed(&state, index, out, len) };
    assert_eq!(claimed(0), negative(Errno::EINVAL));
    assert_eq!(claimed(2), negative(Errno::EBUSY));
    let text = std::ffi::CStr::from_bytes_until_nul(&text).expect("a NUL");
    let text = text.to_str().expect("text");
    assert!(
        text.starts_with("resmem of 1 GiB at 0x59c0000000 is claimed"),
        "{text}"
    );
}

#[test]
fn a_recovery_asks_for_a_new_check() {
    let state = probed(BASE, 96 * GIB);
    assert_eq!(told(&state, 1), (0, READY));
    assert_eq!(told(&state, 0), (1, READY), "no poll without a reset");
    unsafe { varia_recovered(&state) };
    assert_eq!(told(&state, 1), (0, READY), "a poll");
    let counts = ["polls", "recoveries", "resets"].map(|name| count(&state, name));
    assert_eq!(counts, [2, 1, 0]);
}
