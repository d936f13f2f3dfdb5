//! Many queues in one piece of memory.

/// Queues, first in, first out, whose elements lie together: the place that was left last is taken first, so however
/// many queues there are, no more memory is in use than elements are waiting.
#[derive(Debug)]
pub(super) struct Queues<T> {
    places: Vec<Place<T>>,
    /// The place that was left last; from there on [`Place::next`] leads to the others.
    free: u32,
    taken: usize,
}

/// One queue of [`Queues`]. Whoever drops it with elements in it leaves them there for ever.
#[derive(Debug)]
pub(super) struct Queue {
    first: u32,
    last: u32,
}

#[derive(Debug)]
struct Place<T> {
    value: Option<T>,
    next: u32,
}

const NONE: u32 = u32::MAX;
/// So many places are kept when all are empty.
const PLACES_KEPT_MAX: usize = 4_096;

impl Default for Queue {
    fn default() -> Queue {
        Queue { first: NONE, last: NONE }
    }
}

impl Queue {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first == NONE
    }
}

impl<T> Default for Queues<T> {
    fn default() -> Queues<T> {
        Queues { places: Vec::new(), free: NONE, taken: 0 }
    }
}

impl<T> Queues<T> {
    /// Appends an element, and returns it where it stays.
    pub(super) fn push_back(&mut self, queue: &mut Queue, value: T) -> &mut T {
        let at = match self.places.get(self.free as usize) {
            Some(place) => std::mem::replace(&mut self.free, place.next),
            None => {
                self.places.push(Place { value: None, next: NONE });
                (self.places.len() - 1) as u32
            }
        };
        match self.places.get_mut(queue.last as usize) {
            Some(last) => last.next = at,
            None => queue.first = at,
        }
        queue.last = at;
        self.taken += 1;
        let place = &mut self.places[at as usize];
        place.next = NONE;
        place.value.insert(value)
    }

    /// The first element.
    #[inline]
    pub(super) fn front(&self, queue: &Queue) -> Option<&T> {
        self.places.get(queue.first as usize)?.value.as_ref()
    }

    /// The last element.
    #[inline]
    pub(super) fn back(&self, queue: &Queue) -> Option<&T> {
        self.places.get(queue.last as usize)?.value.as_ref()
    }

    /// All elements, in order.
    pub(super) fn iter(&self, queue: &Queue) -> impl Iterator<Item = &T> {
        let at = |at: u32| self.places.get(at as usize);
        std::iter::successors(at(queue.first), move |place| at(place.next)).filter_map(|it| it.value.as_ref())
    }

    /// Takes the first element.
    pub(super) fn pop_front(&mut self, queue: &mut Queue) -> Option<T> {
        let at = queue.first;
        let place = self.places.get_mut(at as usize)?;
        let value = place.value.take();
        queue.first = std::mem::replace(&mut place.next, self.free);
        if queue.first == NONE {
            queue.last = NONE;
        }
        self.free = at;
        self.taken -= 1;
        if self.taken == 0 && self.places.len() > PLACES_KEPT_MAX {
            *self = Queues::default();
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn many_queues_in_one_are_as_many_apart() {
        let mut random = 1u64;
        let mut below = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let mut queues = Queues::default();
        let mut pairs: Vec<(Queue, VecDeque<u64>)> = (0..5).map(|_| Default::default()).collect();
        for step in 0..20_000u64 {
            let (queue, apart) = &mut pairs[below(5) as usize];
            // They fill up and run empty by turns.
            if below(10) < 3 + step / 1_000 % 2 * 4 {
                *queues.push_back(queue, step) += 1;
                apart.push_back(step + 1);
            } else {
                assert_eq!(queues.pop_front(queue), apart.pop_front());
            }
            assert_eq!((queues.front(queue), queues.back(queue)), (apart.front(), apart.back()));
            assert_eq!(queue.is_empty(), apart.is_empty());
            assert!(queues.iter(queue).eq(apart.iter()));
        }
        assert!(queues.places.len() < 2_000, "{}", queues.places.len());
    }

    #[test]
    fn much_room_that_nobody_needs_is_given_back() {
        let (mut queues, mut queue) = (Queues::default(), Queue::default());
        for number in 0..10_000 {
            queues.push_back(&mut queue, number);
        }
        for number in 0..10_000 {
            assert_eq!(queues.pop_front(&mut queue), Some(number));
        }
        assert!(queues.places.is_empty() && queue.is_empty());
        queues.push_back(&mut queue, 7);
        assert_eq!(queues.front(&queue), Some(&7));
    }
}
