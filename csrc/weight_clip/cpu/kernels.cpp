// weight_clip and the clipped optimizers on the CPU: every operand is read once and written once, and what a clip alone
// does not change is not written. Compiled once for each instruction set (INPAINT_FAST_ISA).
#include "common/rows.h"
#include "common/vec.h"
#include "weight_clip/params.h"

namespace inpaint_fast {
namespace INPAINT_FAST_ISA {
namespace {

// The settings of a rule as V, a vector or one number.
template <class V>
struct Numbers {
  V lr, beta1, beta2, one_minus_beta1, one_minus_beta2, eps, weight_decay, keep, gradient_factor, low, high, step_size,
      root_factor;
  Numbers(const UpdateSettings& s, const UpdateEntry& e)
      : lr(broadcast<V>(s.lr)),
        beta1(broadcast<V>(s.beta1)),
        beta2(broadcast<V>(s.beta2)),
        one_minus_beta1(broadcast<V>(1 - s.beta1)),
        one_minus_beta2(broadcast<V>(1 - s.beta2)),
        eps(broadcast<V>(s.eps)),
        weight_decay(broadcast<V>(s.weight_decay)),
        keep(broadcast<V>(s.keep)),
        gradient_factor(broadcast<V>(s.gradient_factor)),
        low(broadcast<V>(s.low)),
        high(broadcast<V>(s.high)),
        step_size(broadcast<V>(e.step_size)),
        root_factor(broadcast<V>(e.root_factor)) {}
};

// Bits of the states that an entry has: a rule is compiled for those it may come with, so that its loops ask nothing.
constexpr int kHas0 = 1, kHas1 = 2, kHas2 = 4;

template <int states>
constexpr bool has(int operand) {
  return operand < kState0 || (states >> (operand - kState0) & 1);
}

// The rules: the new parameter and states from the old ones and the gradient g. Formulas as in torch.optim.
template <Rule rule, int states, class V>
INPAINT_FAST_INLINE V updated(const UpdateSettings& s, const Numbers<V>& n, V p, V g, V* state) {
  if (rule == Rule::adam) {
    state[0] += (g - state[0]) * n.one_minus_beta1;
    state[1] = n.beta2 * state[1] + n.one_minus_beta2 * g * g;
    V second = state[1];
    if (states & kHas2) second = state[2] = larger(state[2], state[1]);
    return p - n.step_size * state[0] / (root(second) * n.root_factor + n.eps);
  }
  if (rule == Rule::rmsprop) {
    state[0] = n.beta1 * state[0] + n.one_minus_beta1 * g * g;
    V variance = state[0];
    if (states & kHas2) {
      state[2] += (g - state[2]) * n.one_minus_beta1;
      variance -= state[2] * state[2];
    }
    const V change = g / (s.variant ? root(variance + n.eps) : root(variance) + n.eps);
    if (!(states & kHas1)) return p - n.lr * change;
    state[1] = n.beta2 * state[1] + change;
    return p - n.lr * state[1];
  }
  if (rule == Rule::sgd) {
    if (!(states & kHas0)) return p - n.lr * g;
    state[0] = s.first ? g : n.beta1 * state[0] + n.one_minus_beta2 * g;
    return p - n.lr * (s.variant ? g + n.beta1 * state[0] : state[0]);
  }
  state[0] = n.beta1 * state[0] + n.one_minus_beta1 * g * g;  // adadelta
  const V delta = root(state[1] + n.eps) / root(state[0] + n.eps) * g;
  state[1] = n.beta1 * state[1] + n.one_minus_beta1 * delta * delta;
  return p - n.lr * delta;
}

// One vector, or one element, at the operands' addresses.
template <class T, Rule rule, int states, class V>
INPAINT_FAST_INLINE void update_at(const UpdateSettings& s, const Numbers<V>& n, T* const* at) {
  V p = load(at[kParam], V{});
  V state[3] = {};
  for (int k = 0; k < 3; ++k)
    if (has<states>(kState0 + k)) state[k] = load(at[kState0 + k], V{});
  V g = load(at[kGradient], V{}) * n.gradient_factor;
  if (s.weight_decay != 0) g += n.weight_decay * p;  // no times an infinite parameter would be NaN
  store(at[kParam], clamped(updated<rule, states, V>(s, n, p * n.keep, g, state), n.low, n.high));
  for (int k = 0; k < 3; ++k)
    if (has<states>(kState0 + k)) store(at[kState0 + k], state[k]);
}

template <class T, Rule rule, int states>
struct Update {
  typedef typename Compute<T>::Scalar A;
  typedef typename Compute<T>::Vector V;
  const UpdateSettings settings;  // a copy: what is stored cannot change it
  const Numbers<V> vectors;
  const Numbers<A> scalars;

  Update(const UpdateSettings& s, const UpdateEntry& e) : settings(s), vectors(s, e), scalars(s, e) {}

  // Elements that lie one after the other.
  void dense(T* const* start, int64_t count) const {
    const UpdateSettings s = settings;
    const Numbers<V> numbers = vectors;
    T* at[kUpdateOperands] = {};
    int64_t i = 0;
    auto move = [&]() __attribute__((always_inline)) {
      for (int k = 0; k < kUpdateOperands; ++k)
        if (has<states>(k)) at[k] = start[k] + i;
    };
    for (; i + lanes<V>() <= count; i += lanes<V>()) move(), update_at<T, rule, states, V>(s, numbers, at);
    const int64_t steps[kUpdateOperands] = {1, 1, 1, 1, 1};
    move(), apart(at, steps, count - i);
  }

  // Elements that lie so many apart, one at a time.
  __attribute__((noinline)) void apart(T* const* start, const int64_t* steps, int64_t count) const {
    T* at[kUpdateOperands] = {};
    for (int64_t i = 0; i < count; ++i) {
      for (int k = 0; k < kUpdateOperands; ++k)
        if (has<states>(k)) at[k] = start[k] + i * steps[k];
      update_at<T, rule, states, A>(settings, scalars, at);
    }
  }
};

// A clip alone: reads everything, writes only vectors with something to clip.
template <class T>
struct Update<T, Rule::clip, 0> {
  typedef typename Compute<T>::Scalar A;
  typedef typename Compute<T>::Vector V;
  const A low, high;

  Update(const UpdateSettings& s, const UpdateEntry&) : low(static_cast<A>(s.low)), high(static_cast<A>(s.high)) {}

  void dense(T* const* start, int64_t count) const {
    constexpr int kUnroll = 4;
    const V lows = broadcast<V>(low), highs = broadcast<V>(high);
    T* p = start[kParam];
    int64_t i = 0;
    for (; i + kUnroll * lanes<V>() <= count; i += kUnroll * lanes<V>()) {
      V x[kUnroll];
      auto outside = (V{} < V{});
      for (int u = 0; u < kUnroll; ++u) {
        x[u] = load(p + i + u * lanes<V>(), V{});
        outside |= (x[u] < lows) | (x[u] > highs);
      }
      if (any(outside))
        for (int u = 0; u < kUnroll; ++u) store(p + i + u * lanes<V>(), clamped(x[u], lows, highs));
    }
    for (; i < count; ++i) clip_one(p + i);
  }

  void apart(T* const* start, const int64_t* steps, int64_t count) const {
    for (int64_t i = 0; i < count; ++i) clip_one(start[kParam] + i * steps[kParam]);
  }

  void clip_one(T* p) const { from_scalar(p, clamped(to_scalar(*p, A(0)), low, high)); }
};

// Elements [first, last) of an entry.
template <class T, Rule rule, int states>
void update_entry(const UpdateSettings& settings, const UpdateEntry& entry, int64_t first, int64_t last) {
  const Update<T, rule, states> update(settings, entry);
  T* start[kUpdateOperands] = {};
  if (!entry.strided) {
    for (int k = 0; k < kUpdateOperands; ++k)
      if (entry.data[k]) start[k] = static_cast<T*>(entry.data[k]) + first;
    return update.dense(start, last - first);
  }
  const Strided& walk = *entry.strided;
  int64_t steps[kUpdateOperands];
  for (int k = 0; k < kUpdateOperands; ++k) steps[k] = walk.strides[k][walk.dims - 1];
  for_each_row(walk, first, last, [&](const int64_t* offsets, int64_t at, int64_t count) {
    for (int k = 0; k < kUpdateOperands; ++k)
      if (entry.data[k]) start[k] = static_cast<T*>(entry.data[k]) + offsets[k] + at * steps[k];
    update.apart(start, steps, count);
  });
}

template <class T>
using UpdateOfEntry = void (*)(const UpdateSettings&, const UpdateEntry&, int64_t, int64_t);

template <class T>
UpdateOfEntry<T> update_of(const UpdateSettings& s, const UpdateEntry& e) {
  switch (s.rule) {
    case Rule::clip:
      return update_entry<T, Rule::clip, 0>;
    case Rule::adam:
      return s.variant ? update_entry<T, Rule::adam, kHas0 | kHas1 | kHas2>
                       : update_entry<T, Rule::adam, kHas0 | kHas1>;
    case Rule::rmsprop:
      if (e.data[kState2])
        return e.data[kState1] ? update_entry<T, Rule::rmsprop, kHas0 | kHas1 | kHas2>
                               : update_entry<T, Rule::rmsprop, kHas0 | kHas2>;
      return e.data[kState1] ? update_entry<T, Rule::rmsprop, kHas0 | kHas1> : update_entry<T, Rule::rmsprop, kHas0>;
    case Rule::sgd:
      return e.data[kState0] ? update_entry<T, Rule::sgd, kHas0> : update_entry<T, Rule::sgd, 0>;
    default:
      return update_entry<T, Rule::adadelta, kHas0 | kHas1>;
  }
}

template <class T>
void update_entries(const UpdateSettings& settings, const UpdateEntry* entry, int64_t begin, int64_t end) {
  for (; begin < end; ++entry) {
    const int64_t stop = entry->begin + entry->numel < end ? entry->begin + entry->numel : end;
    if (begin < stop) update_of<T>(settings, *entry)(settings, *entry, begin - entry->begin, stop - entry->begin);
    begin = stop;
  }
}

}  // namespace

void update(const UpdateSettings& settings, const UpdateEntry* entry, int64_t begin, int64_t end) {
  switch (settings.kind) {
    case ScalarKind::float64:
      return update_entries<double>(settings, entry, begin, end);
    case ScalarKind::float16:
      return update_entries<Half>(settings, entry, begin, end);
    case ScalarKind::bfloat16:
      return update_entries<BFloat16>(settings, entry, begin, end);
    default:
      return update_entries<float>(settings, entry, begin, end);
  }
}

}  // namespace INPAINT_FAST_ISA
}  // namespace inpaint_fast
