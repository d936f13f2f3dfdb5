//! Shares by weight, and their rounding to whole copies.

/// Parts of a copy in which shares are counted.
const PARTS: u128 = 1_000_000;

/// Divides `total` by `weights`, nobody getting more than its cap: what a capped one leaves is
/// divided among the others. In millionths.
pub(super) fn shares(total: usize, weights: &[u64], caps: &[usize]) -> Vec<u64> {
    let mut share: Vec<Option<u64>> = vec![None; weights.len()];
    let mut left = total as u128 * PARTS;
    loop {
        let open = |index: &usize| share[*index].is_none();
        let weight: u128 = (0..weights.len()).filter(open).map(|i| u128::from(weights[i])).sum();
        if weight == 0 {
            break;
        }
        let capped: Vec<usize> = (0..weights.len())
            .filter(open)
            .filter(|&i| left * u128::from(weights[i]) >= caps[i] as u128 * PARTS * weight)
            .collect();
        if capped.is_empty() {
            for (share, &own) in share.iter_mut().zip(weights) {
                share.get_or_insert((left * u128::from(own) / weight) as u64);
            }
            break;
        }
        for index in capped {
            let cap = caps[index] as u128 * PARTS;
            share[index] = Some(cap as u64);
            left = left.saturating_sub(cap);
        }
    }
    share.into_iter().map(Option::unwrap_or_default).collect()
}

/// Rounds `shares` so that they add up to `total`: down or up, up first for those that `held` more
/// already, then for the largest remainders. Nobody gets more than its cap.
pub(super) fn apportion(total: usize, shares: &[u64], held: &[usize], caps: &[usize]) -> Vec<usize> {
    let parts = PARTS as u64;
    let mut due: Vec<usize> = shares.iter().map(|share| (share / parts) as usize).collect();
    let mut order: Vec<usize> = (0..shares.len()).filter(|&i| due[i] < caps[i]).collect();
    order.sort_by_key(|&i| {
        let remainder = shares[i] % parts;
        (remainder == 0, held[i] <= due[i], std::cmp::Reverse(remainder), i)
    });
    let left = total.saturating_sub(due.iter().sum());
    for &index in order.iter().take(left) {
        due[index] += 1;
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capped_share_goes_to_the_others() {
        let caps = [100, 100, 100];
        assert_eq!(shares(200, &[800, 100, 100], &caps), [100_000_000, 50_000_000, 50_000_000]);
    }

    #[test]
    fn rounding_adds_up_and_favours_holders() {
        let caps = [10, 10, 10];
        let thirds = shares(10, &[1, 1, 1], &caps);
        assert_eq!(apportion(10, &thirds, &[0, 0, 0], &caps), [4, 3, 3]);
        assert_eq!(apportion(10, &thirds, &[0, 9, 0], &caps), [3, 4, 3]);
    }
}
