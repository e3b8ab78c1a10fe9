"""Trains small heads, one or several that differ in learning rate and L2 penalty, as one stacked model.

On two cores this takes 0.36 to 0.76 of the time of `keras.Model.fit` for one small head, 0.24 to 0.56 for three
learning rates and 0.16 to 0.38 for ten, compiling included. For heads of 1,024 units it takes 0.94 to 1.21, so only
small heads are stacked. `python -m benchmarks.training candidates` measures this.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers

from stages.core.prefetch import prefetch
from stages.training.batch_normalization import (
    StatisticsSample,
    moving_statistics,
    pool_moments,
    using_batch_statistics,
)
from stages.training.batches import Batch, TrainingBatches, rows_within
from stages.training.optimizers import make_optimizer, optimizer_class

if TYPE_CHECKING:
    import tensorflow as tf

    from stages.config.training import TrainingConfig

# The layers of which models can be stacked.
STACKABLE_LAYERS = (
    layers.InputLayer,
    layers.Identity,
    layers.Flatten,
    layers.BatchNormalization,
    layers.Dense,
    layers.Activation,
    layers.Dropout,
)
MAX_STACKED_WEIGHTS = 200_000  # of one model; in larger models the arithmetic takes most of the time, not the calls
BYTES_PER_CALL = 16 * 2**20  # of input: the call itself then takes little time beside its steps


def can_stack(models: list[keras.Model]) -> bool:
    """Whether models can be trained as one: one or several small heads of dense layers, and TensorFlow computes."""
    first = models[0]
    return (
        keras.backend.backend() == "tensorflow"
        and first.count_params() <= MAX_STACKED_WEIGHTS
        and all(isinstance(layer, STACKABLE_LAYERS) for layer in first.layers)
    )


class StackedTrainer:
    """Trains compiled models of equal layers as one: every weight that training changes is stacked, (models, ...).

    Apart from rounding, each model trains as it would alone, with the same dropout for all. Weights that training does
    not change are shared.
    """

    def __init__(self, models: list[keras.Model]):
        self.models = models
        for model in models:
            model.optimizer.build(model.trainable_variables)
        first = models[0]
        self._penalties = np.array(
            [[getattr(weight.regularizer, "l2", 0.0) for weight in model.trainable_variables] for model in models],
            np.float32,
        )
        moving = set(map(id, moving_statistics(first)))
        # Positions of means and variances, in turn, among the variables without a gradient.
        self._moving = [
            position for position, variable in enumerate(first.non_trainable_variables) if id(variable) in moving
        ]
        self._weights = [_stack(variables) for variables in zip(*(m.trainable_variables for m in models), strict=True)]
        self._statistics = [_stack(variables) for variables in zip(*map(self._statistics_of, models), strict=True)]
        self._rates = keras.Variable(np.zeros(len(models), np.float32), trainable=False)
        self._optimizer = _optimizer_with_rates(first.optimizer, self._rates)
        self._optimizer.build(self._weights)
        self._train_function = self._predict_function = self._moments_function = None

    def train_epoch(self, batches: TrainingBatches, epoch: int) -> np.ndarray:
        """Train all models for an epoch, counted from 0; returns (models, 2): mean loss with penalties, accuracy."""
        first = epoch * batches.steps_per_epoch
        steps_per_call = max(1, rows_within(batches.examples.array, BYTES_PER_CALL) // batches.batch_size)
        step, sums = first, np.zeros((len(self.models), 2))
        self._load()
        for block in prefetch(_blocks(batches, first, steps_per_call)):
            count = -(-len(block.inputs) // batches.batch_size)
            steps = np.arange(step, step + count)
            rates = np.stack([np.asarray(model.optimizer.schedule(steps)) for model in self.models], axis=1)
            if self._train_function is None:
                self._train_function = self._compile(block, batches.batch_size)
            sums += self._train_function(*block, rates).numpy()
            step += count
        self._store()
        return sums / len(batches.examples.rows)

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Probabilities (models, n, classes) of a batch, in inference mode, after an epoch."""
        if self._predict_function is None:
            self._predict_function = self._compile_inference(inputs)
        return self._predict_function(inputs)[0].numpy()

    def estimate_statistics(self, sample: StatisticsSample) -> None:
        """Replace the statistics of trained batch normalization, if there is any, by those of the sample."""
        if not self._moving:
            return
        moments = []
        for inputs in sample:
            if self._moments_function is None:
                with using_batch_statistics(self.models[0]):
                    self._moments_function = self._compile_inference(inputs)
            moments.append([values.numpy() for values in self._moments_function(inputs)[1]])
        for variable, value in zip(self._statistics, pool_moments(moments), strict=True):
            variable.assign(value)
        self._store()

    def _statistics_of(self, model: keras.Model) -> list[keras.Variable]:
        return [model.non_trainable_variables[position] for position in self._moving]

    def _pairs(self) -> list[tuple[keras.Variable, tuple[keras.Variable, ...]]]:
        """Every stacked variable with those of the models; also the step count of the optimizer, which is shared."""
        pairs = list(zip(self._weights, zip(*(m.trainable_variables for m in self.models), strict=True), strict=True))
        pairs += zip(self._statistics, zip(*map(self._statistics_of, self.models), strict=True), strict=True)
        states = zip(*(_optimizer_state(model.optimizer) for model in self.models), strict=True)
        return [*pairs, *zip(_optimizer_state(self._optimizer), states, strict=True)]

    def _load(self) -> None:
        """Take the variables of the models and their optimizers."""
        for stacked, variables in self._pairs():
            shared = stacked.shape == variables[0].shape
            stacked.assign(variables[0] if shared else np.stack([np.asarray(variable) for variable in variables]))

    def _store(self) -> None:
        """Give the variables back to the models and their optimizers."""
        for stacked, variables in self._pairs():
            values = np.asarray(stacked)
            for number, variable in enumerate(variables):
                variable.assign(values if values.shape == variable.shape else values[number])
        for model in self.models[1:]:
            for position, variable in enumerate(model.non_trainable_variables):
                if position not in self._moving:
                    variable.assign(self.models[0].non_trainable_variables[position])

    def _compile(self, example: Batch, batch_size: int) -> Any:
        """A function of a block of batches and their rates (batches, models): takes all steps and returns (models, 2).

        One step at a time, Keras and TensorFlow would spend more time between the steps than in them.
        """
        import tensorflow as tf

        models = len(self.models)
        signature = [tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in example]

        @tf.function(input_signature=[*signature, tf.TensorSpec((None, models), np.float32)], autograph=False)
        def steps(inputs: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, rates: tf.Tensor) -> tf.Tensor:
            def body(number: tf.Tensor, sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                rows = slice(number * batch_size, (number + 1) * batch_size)
                return number + 1, sums + self._step(Batch(inputs[rows], targets[rows], weights[rows]), rates[number])

            start = tf.constant(0), tf.zeros((models, 2))
            return tf.while_loop(lambda number, _: number < tf.shape(rates)[0], body, start, parallel_iterations=1)[1]

        # A concrete function: TensorFlow warns when a function is traced for every model.
        return steps.get_concrete_function()

    def _compile_inference(self, example: np.ndarray) -> Any:
        """A function of inputs (n, ...): probabilities (models, n, classes), and statistics after it (models, ...)."""
        import tensorflow as tf

        @tf.function(input_signature=[tf.TensorSpec((None, *example.shape[1:]), example.dtype)], autograph=False)
        def infer(inputs: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
            def infer_one(variables: tuple[list, list]) -> tuple[tf.Tensor, list[tf.Tensor]]:
                weights, statistics = variables
                others = self._untrained_variables(statistics)
                probabilities, updated = self.models[0].stateless_call(weights, others, inputs, training=False)
                return probabilities, [tf.convert_to_tensor(updated[position]) for position in self._moving]

            return tf.vectorized_map(infer_one, (_values(self._weights), _values(self._statistics)))

        return infer.get_concrete_function()

    def _step(self, batch: Batch, rates: "tf.Tensor") -> "tf.Tensor":
        """Train on one batch; returns the loss times the size of the batch and the correct predictions, (models, 2)."""
        import tensorflow as tf

        first = self.models[0]

        def step_of_one(variables: tuple[list, list, Any]) -> tuple[list, list, Any]:
            weights, statistics, penalties = variables
            with tf.GradientTape() as tape:
                tape.watch(weights)
                others = self._untrained_variables(statistics)
                probabilities, updated = first.stateless_call(weights, others, batch.inputs, training=True)
                loss = first.loss(batch.targets, probabilities, sample_weight=batch.weights)
                for number in np.flatnonzero(self._penalties.any(axis=0)):
                    loss += tf.math.multiply_no_nan(tf.reduce_sum(tf.square(weights[number])), penalties[number])
            correct = tf.equal(tf.argmax(probabilities, axis=-1), tf.argmax(batch.targets, axis=-1))
            size = tf.cast(tf.shape(batch.targets)[0], tf.float32)
            sums = tf.stack([loss * size, tf.reduce_sum(tf.cast(correct, tf.float32))])
            return tape.gradient(loss, weights), [tf.convert_to_tensor(value) for value in updated], sums

        gradients, updated, sums = tf.vectorized_map(
            step_of_one, (_values(self._weights), _values(self._statistics), tf.constant(self._penalties))
        )
        self._rates.assign(rates)
        self._optimizer.apply_gradients(zip(gradients, self._weights, strict=True))
        statistics = iter(self._statistics)
        for position, variable in enumerate(first.non_trainable_variables):
            if position in self._moving:
                next(statistics).assign(updated[position])
            else:  # shared, such as the state of a random number generator
                variable.assign(updated[position][0])
        return sums

    def _untrained_variables(self, statistics: list["tf.Tensor"]) -> list["tf.Tensor"]:
        """The variables without a gradient, with the given running means and variances."""
        values = _values(self.models[0].non_trainable_variables)
        for position, value in zip(self._moving, statistics, strict=True):
            values[position] = value
        return values


def _blocks(batches: TrainingBatches, first: int, steps_per_call: int) -> Iterator[Batch]:
    """The batches of an epoch, whose first step is `first`, joined to blocks of at most `steps_per_call` steps."""
    last = first + batches.steps_per_epoch
    for start in range(first, last, steps_per_call):
        block = [batches[step] for step in range(start, min(start + steps_per_call, last))]
        yield Batch(*(np.concatenate(parts) for parts in zip(*block, strict=True)))


def _values(variables: list[keras.Variable]) -> list["tf.Tensor"]:
    return [variable.value for variable in variables]


def _stack(variables: tuple[keras.Variable, ...]) -> keras.Variable:
    return keras.Variable(np.stack([np.asarray(variable) for variable in variables]), name=variables[0].name)


def _optimizer_state(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables of an optimizer but the reduction of its learning rate, which each model keeps for itself."""
    return [variable for variable in optimizer.variables if variable is not optimizer.schedule.reduction]


def _optimizer_with_rates(optimizer: keras.optimizers.Optimizer, rates: keras.Variable) -> keras.optimizers.Optimizer:
    """The same optimizer for stacked variables, (models, ...), with a learning rate (models,) of the models.

    All optimizers of a study update every number of a weight by itself, so no model affects another. Factors of
    single weights, see `compile_model`, are dropped: heads have none.
    """
    settings: TrainingConfig = optimizer.schedule.settings
    kind, decay = optimizer_class(settings), optimizer.weight_decay

    class Stacked(kind):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            own_rates = keras.ops.reshape(rates, (-1, *[1] * (len(variable.shape) - 1)))
            if decay:
                variable.assign(variable - variable * decay * own_rates)
            super().update_step(gradient, variable, own_rates)

    stacked = make_optimizer(Stacked, settings, optimizer.schedule.steps_per_epoch)
    stacked.weight_decay = None  # Keras would apply one learning rate to the decay of all models
    return stacked
