//! In which order and in which requests spans are fetched that will be read.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;

/// How far down the list neighbours of a span are looked for, in steps: what is wanted much later must not delay what
/// is wanted now.
const LOOKAHEAD: usize = 64;

/// Most compressed bytes in a request, unless one span has more. A reader who comes for the last span of it waits for
/// the first as well; a few such requests at a time keep a fast link busy all the same.
const MAX_RUN: u64 = 2 << 20;

/// What is wanted of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A part of an entry's content.
    Content {
        entry: usize,
        range: Range<u64>,
    },
    Spans(Range<usize>),
}

/// Something that is wanted; `layer` is the layer's place in the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) layer: usize,
    pub(super) target: Target,
}

/// What a plan has to know of layers.
pub(super) trait Layers {
    /// The spans that hold what is wanted, of those that the layer has; `None` if the layer is not open yet.
    fn spans(&self, layer: usize, target: &Target) -> Option<Range<usize>>;
    /// Compressed size of a span, in bytes.
    fn size(&self, layer: usize, span: usize) -> u64;
}

/// A step that is not done.
#[derive(Debug)]
struct Pending {
    step: Step,
    /// Its spans before this one were given. Without it a step of many spans would be looked through for each of its
    /// requests.
    from: usize,
}

/// What is still to be fetched.
#[derive(Debug, Default)]
pub(super) struct Plan {
    steps: VecDeque<Pending>,
    /// Steps before these, whose layers were not open.
    waiting: VecDeque<Pending>,
    given: HashSet<(usize, usize)>,
}

impl Plan {
    pub(super) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let steps = steps.into_iter().map(|step| Pending { step, from: 0 });
        Self { steps: steps.collect(), ..Self::default() }
    }

    /// Whether nothing is left, not even of layers that are not open.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.waiting.is_empty()
    }

    /// Other layers may be open now.
    pub(super) fn retry(&mut self) {
        self.waiting.append(&mut self.steps);
        std::mem::swap(&mut self.waiting, &mut self.steps);
    }

    /// The next request: a layer and neighbouring spans of it. What is wanted of layers that are not open is passed
    /// over until [`Plan::retry`].
    pub(super) fn next(&mut self, layers: &impl Layers) -> Option<(usize, Range<usize>)> {
        while let Some(Pending { step, from }) = self.steps.front_mut() {
            let layer = step.layer;
            match layers.spans(layer, &step.target) {
                None => self.waiting.extend(self.steps.pop_front()),
                Some(spans) => {
                    let mut left = spans.start.max(*from)..spans.end;
                    match left.find(|span| !self.given.contains(&(layer, *span))) {
                        Some(span) => {
                            *from = span;
                            return Some((layer, self.extend(layer, span, layers)));
                        }
                        None => drop(self.steps.pop_front()),
                    }
                }
            }
        }
        None
    }

    /// Takes neighbours of a span along that are wanted soon.
    fn extend(&mut self, layer: usize, span: usize, layers: &impl Layers) -> Range<usize> {
        let soon: Vec<_> = self
            .steps
            .iter()
            .take(LOOKAHEAD)
            .filter(|Pending { step, .. }| step.layer == layer)
            .filter_map(|Pending { step, .. }| layers.spans(layer, &step.target))
            .collect();
        let mut run = span..span + 1;
        let mut size = layers.size(layer, span);
        self.given.insert((layer, span));
        loop {
            let wanted = |span: &usize| {
                soon.iter().any(|spans| spans.contains(span)) && !self.given.contains(&(layer, *span))
            };
            let neighbours = [Some(run.end), run.start.checked_sub(1)];
            let Some(next) = neighbours.into_iter().flatten().find(wanted) else { break };
            size += layers.size(layer, next);
            if size > MAX_RUN {
                break;
            }
            self.given.insert((layer, next));
            run = run.start.min(next)..run.end.max(next + 1);
        }
        run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Layers of 100 spans of a size each; an entry is a span.
    struct Fake {
        open: Vec<bool>,
        size: u64,
    }

    impl Layers for Fake {
        fn spans(&self, layer: usize, target: &Target) -> Option<Range<usize>> {
            self.open[layer].then(|| match target {
                Target::Content { entry, .. } => *entry..*entry + 1,
                Target::Spans(spans) => spans.start.min(100)..spans.end.min(100),
            })
        }

        fn size(&self, _layer: usize, _span: usize) -> u64 {
            self.size
        }
    }

    fn plan(steps: &[(usize, usize)]) -> Plan {
        Plan::new(steps.iter().map(|(layer, entry)| Step {
            layer: *layer,
            target: Target::Content { entry: *entry, range: 0..1 },
        }))
    }

    fn all(plan: &mut Plan, layers: &Fake) -> Vec<(usize, Range<usize>)> {
        std::iter::from_fn(|| plan.next(layers)).collect()
    }

    fn open(size: u64) -> Fake {
        Fake { open: vec![true; 3], size }
    }

    #[test]
    fn the_order_is_that_of_reading_and_neighbours_share_a_request() {
        let mut plan = plan(&[(0, 5), (1, 9), (0, 7), (0, 6), (0, 5), (2, 0), (0, 4), (1, 50), (1, 10)]);
        assert_eq!(all(&mut plan, &open(1)), [(0, 4..8), (1, 9..11), (2, 0..1), (1, 50..51)]);
        assert!(plan.is_empty());
    }

    #[test]
    fn a_request_has_a_largest_size() {
        let spans: Vec<_> = (0..10).map(|span| (0, span)).collect();
        assert_eq!(all(&mut plan(&spans), &open(MAX_RUN / 4)), [(0, 0..4), (0, 4..8), (0, 8..10)]);
        assert_eq!(all(&mut plan(&spans[..3]), &open(MAX_RUN * 9)), [(0, 0..1), (0, 1..2), (0, 2..3)]);
    }

    #[test]
    fn what_is_wanted_much_later_comes_later() {
        let mut steps = vec![(0, 0)];
        steps.extend((0..LOOKAHEAD).map(|at| (1, at * 1000 + 1)));
        steps.push((0, 1));
        let order = all(&mut plan(&steps), &open(1));
        assert_eq!((order.first(), order.last()), (Some(&(0, 0..1)), Some(&(0, 1..2))));
    }

    #[test]
    fn layers_that_are_not_open_are_waited_for_without_holding_up_others() {
        let mut plan = plan(&[(0, 1), (1, 1), (0, 2), (2, 7)]);
        let mut layers = Fake { open: vec![false, true, false], size: 1 };
        assert_eq!(all(&mut plan, &layers), [(1, 1..2)]);
        assert!(!plan.is_empty());
        layers.open[2] = true;
        plan.retry();
        assert_eq!(all(&mut plan, &layers), [(2, 7..8)]);
        layers.open[0] = true;
        plan.retry();
        assert_eq!(all(&mut plan, &layers), [(0, 1..3)]);
        assert!(plan.is_empty());
    }

    /// The largest layers have tens of thousands of spans, and each may be a request of its own.
    #[test]
    fn a_step_of_many_spans_is_gone_through_once() {
        struct Large;
        impl Layers for Large {
            fn spans(&self, _: usize, target: &Target) -> Option<Range<usize>> {
                let Target::Spans(spans) = target else { return None };
                Some(spans.start..spans.end.min(50_000))
            }

            fn size(&self, _: usize, _: usize) -> u64 {
                MAX_RUN
            }
        }
        let step = Step { layer: 0, target: Target::Spans(0..usize::MAX) };
        let mut plan = Plan::new([step.clone(), step]);
        for span in 0..50_000 {
            assert_eq!(plan.next(&Large), Some((0, span..span + 1)));
            assert_eq!(plan.steps[0].from, span);
        }
        assert_eq!(plan.next(&Large), None);
        assert!(plan.is_empty());
    }

    /// An artifact may claim any number.
    #[test]
    fn spans_that_do_not_exist_are_not_asked_for() {
        let step = |spans| Step { layer: 0, target: Target::Spans(spans) };
        let mut plan = Plan::new([step(98..usize::MAX), step(500..600), step(0..2)]);
        assert_eq!(all(&mut plan, &open(1)), [(0, 98..100), (0, 0..2)]);
        assert!(plan.is_empty());
    }
}
