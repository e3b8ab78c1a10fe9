"""Steps of training: many in one call of TensorFlow, and of models that differ in their rates all as one.

A call of Keras for a single step takes about a millisecond, in which a small head could have computed several.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
from keras import layers

if TYPE_CHECKING:
    import tensorflow as tf

# Of these layers a model can be stacked with others of its kind.
STACKED = (
    layers.InputLayer,
    layers.Identity,
    layers.Flatten,
    layers.BatchNormalization,
    layers.Dense,
    layers.Activation,
    layers.Dropout,
)
MOST_STACKED = 200_000  # weights of one model; what the calls cost is little beside the arithmetic of larger ones


class Batches(NamedTuple):
    """Successive batches, each of `size` examples but the last: inputs (n, ...), one-hot targets (n, classes) float32,
    and weights (n,) float32 of the examples."""

    inputs: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    size: int


class Trainer:
    """Trains some models, each compiled with categorical cross-entropy, with the same batches.

    Between `begin` and `end`, which stand around the steps of an epoch, the models may not be up to date.
    """

    def __init__(self, models: list[keras.Model]):
        self.models = models
        for model in models:
            model.optimizer.build(model.trainable_variables)

    def begin(self) -> None:
        """Take over what the models and their optimizers have."""

    def steps(self, batches: Batches, rates: np.ndarray) -> np.ndarray:
        """Train on batches, with the learning rates (batches, models) float32.

        Returns (models, 2): the sums over the examples of the loss, with its penalties, and of what was right.
        """
        raise NotImplementedError

    def end(self) -> None:
        """Give the models and their optimizers what they have now."""

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Probabilities (models, n, classes) of a batch, in inference mode; after `end`."""
        raise NotImplementedError


def make_trainers(models: list[keras.Model]) -> list[Trainer]:
    """The fewest trainers for models that differ in their weights, learning rates and penalties only."""
    if keras.backend.backend() != "tensorflow":
        return [KerasTrainer(model) for model in models]
    first = models[0]
    small = first.count_params() <= MOST_STACKED and all(isinstance(layer, STACKED) for layer in first.layers)
    if len(models) > 1 and small:
        return [StackedTrainer(models)]
    return [LoopTrainer(model) for model in models]


class KerasTrainer(Trainer):
    """One model, step by step as Keras does it, on any of its backends."""

    def __init__(self, model: keras.Model):
        super().__init__([model])

    def steps(self, batches: Batches, rates: np.ndarray) -> np.ndarray:
        """See `Trainer`."""
        (model,) = self.models
        sums = np.zeros((1, 2))
        for number, (rate,) in enumerate(rates):
            inputs, targets, weights = (each[number * batches.size :][: batches.size] for each in batches[:3])
            model.optimizer.learning_rate = rate
            found = model.train_on_batch(inputs, targets, sample_weight=weights, return_dict=True)
            sums += len(inputs) * np.array([found["loss"], found["accuracy"]])
        return sums

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """See `Trainer`."""
        return np.asarray(self.models[0].predict_on_batch(inputs))[None]


class LoopTrainer(KerasTrainer):
    """One model, many steps in one call of TensorFlow."""

    def __init__(self, model: keras.Model):
        super().__init__(model)
        self._steps = None

    def steps(self, batches: Batches, rates: np.ndarray) -> np.ndarray:
        """See `Trainer`."""
        if self._steps is None:
            self._steps = _many_steps(self._step, batches, models=1)
        return self._steps(*batches[:3], rates).numpy()

    def _step(self, inputs: "tf.Tensor", targets: "tf.Tensor", weights: "tf.Tensor", rates: "tf.Tensor") -> "tf.Tensor":
        import tensorflow as tf

        (model,) = self.models
        model.optimizer.learning_rate.assign(rates[0])
        with tf.GradientTape() as tape:
            found = model(inputs, training=True)
            loss = model.compute_loss(inputs, targets, found, sample_weight=weights)
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return _sums(loss, found, targets)[None]


class StackedTrainer(Trainer):
    """Dense heads as one: every weight that training changes is stacked over the models, (models, ...).

    Each model trains as it would alone, but for rounding, on the same dropout. What no training changes they share.
    """

    def __init__(self, models: list[keras.Model]):
        super().__init__(models)
        first = models[0]
        self._penalties = np.array(
            [[getattr(of.regularizer, "l2", 0.0) for of in model.trainable_variables] for model in models], np.float32
        )
        changing = {
            id(variable)
            for layer in first.layers
            if isinstance(layer, layers.BatchNormalization) and layer.trainable
            for variable in layer.non_trainable_variables
        }
        # The places of running means and variances among the variables that have no gradient.
        self._moving = [place for place, each in enumerate(first.non_trainable_variables) if id(each) in changing]
        self._trained = [_stack(variables) for variables in zip(*(m.trainable_variables for m in models), strict=True)]
        self._means = [_stack(variables) for variables in zip(*(self._means_of(m) for m in models), strict=True)]
        self._rates = keras.Variable(np.zeros(len(models), np.float32), trainable=False)
        self._optimizer = _with_rates(first.optimizer, self._rates)
        self._optimizer.build(self._trained)
        self._steps = self._predict = None

    def _means_of(self, model: keras.Model) -> list[keras.Variable]:
        return [model.non_trainable_variables[place] for place in self._moving]

    def _pairs(self) -> list[tuple[keras.Variable, tuple[keras.Variable, ...]]]:
        """Every stacked variable, and that of each model; those of the optimizer that are not stacked too."""
        pairs = list(zip(self._trained, zip(*(m.trainable_variables for m in self.models), strict=True), strict=True))
        pairs += zip(self._means, zip(*(self._means_of(m) for m in self.models), strict=True), strict=True)
        of_optimizers = zip(*(model.optimizer.variables for model in self.models), strict=True)
        return [*pairs, *zip(self._optimizer.variables, of_optimizers, strict=True)]

    def begin(self) -> None:
        """See `Trainer`."""
        for stacked, variables in self._pairs():
            shared = stacked.shape == variables[0].shape  # the count of steps
            stacked.assign(variables[0] if shared else np.stack([np.asarray(each) for each in variables]))

    def end(self) -> None:
        """See `Trainer`."""
        for stacked, variables in self._pairs():
            values = np.asarray(stacked)
            for number, variable in enumerate(variables):
                variable.assign(values if values.shape == variable.shape else values[number])
        for model in self.models[1:]:
            for place, variable in enumerate(model.non_trainable_variables):
                if place not in self._moving:
                    variable.assign(self.models[0].non_trainable_variables[place])

    def steps(self, batches: Batches, rates: np.ndarray) -> np.ndarray:
        """See `Trainer`."""
        if self._steps is None:
            self._steps = _many_steps(self._step, batches, len(self.models))
        return self._steps(*batches[:3], rates).numpy()

    def _step(self, inputs: "tf.Tensor", targets: "tf.Tensor", weights: "tf.Tensor", rates: "tf.Tensor") -> "tf.Tensor":
        import tensorflow as tf

        first = self.models[0]

        def of_one(own: tuple[list, list, Any]) -> tuple[list, list, Any]:
            trained, means, penalties = own
            with tf.GradientTape() as tape:
                tape.watch(trained)
                found, after = first.stateless_call(trained, self._others(means), inputs, training=True)
                loss = first.loss(targets, found, sample_weight=weights)
                for number in np.flatnonzero(self._penalties.any(axis=0)):
                    loss += tf.math.multiply_no_nan(tf.reduce_sum(tf.square(trained[number])), penalties[number])
            after = [tf.convert_to_tensor(each) for each in after]
            return tape.gradient(loss, trained), after, _sums(loss, found, targets)

        gradients, after, sums = tf.vectorized_map(
            of_one,
            (
                [each.value for each in self._trained],
                [each.value for each in self._means],
                tf.constant(self._penalties),
            ),
        )
        self._rates.assign(rates)
        self._optimizer.apply_gradients(zip(gradients, self._trained, strict=True))
        means = iter(self._means)
        for place, variable in enumerate(first.non_trainable_variables):
            if place in self._moving:
                next(means).assign(after[place])
            else:  # what they share; the state of random numbers goes on
                variable.assign(after[place][0])
        return sums

    def _others(self, means: list["tf.Tensor"]) -> list["tf.Tensor"]:
        """The variables without a gradient, with the given running means and variances."""
        found = [each.value for each in self.models[0].non_trainable_variables]
        for place, mean in zip(self._moving, means, strict=True):
            found[place] = mean
        return found

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """See `Trainer`."""
        import tensorflow as tf

        if self._predict is None:
            signature = [tf.TensorSpec((None, *inputs.shape[1:]), inputs.dtype)]

            @tf.function(input_signature=signature, autograph=False)
            def predict(inputs: tf.Tensor) -> tf.Tensor:
                def of_one(own: tuple[list, list]) -> tf.Tensor:
                    return self.models[0].stateless_call(own[0], self._others(own[1]), inputs, training=False)[0]

                own = [each.value for each in self._trained], [each.value for each in self._means]
                return tf.vectorized_map(of_one, own)

            self._predict = predict.get_concrete_function()
        return self._predict(inputs).numpy()


def _many_steps(step: Callable[..., "tf.Tensor"], example: Batches, models: int) -> Callable[..., "tf.Tensor"]:
    """A function that takes the steps of all batches it is given, and returns the sum of what they return.

    step: of one batch - inputs, targets, weights, rates (models,) - to (models, 2). example: of what it will be given.
    """
    import tensorflow as tf

    signature = [tf.TensorSpec((None, *each.shape[1:]), each.dtype) for each in example[:3]]

    @tf.function(input_signature=[*signature, tf.TensorSpec((None, models), np.float32)], autograph=False)
    def steps(inputs: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, rates: tf.Tensor) -> tf.Tensor:
        def body(number: tf.Tensor, sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            batch = slice(number * example.size, (number + 1) * example.size)
            return number + 1, sums + step(inputs[batch], targets[batch], weights[batch], rates[number])

        start = tf.constant(0), tf.zeros((models, 2))
        return tf.while_loop(lambda number, _: number < tf.shape(rates)[0], body, start, parallel_iterations=1)[1]

    # Of a function that is called TensorFlow would complain that it is made anew for every model.
    return steps.get_concrete_function()


def _sums(loss: "tf.Tensor", found: "tf.Tensor", targets: "tf.Tensor") -> "tf.Tensor":
    """The loss times the size of the batch, and how many of its examples are predicted rightly, (2,) float32."""
    import tensorflow as tf

    right = tf.equal(tf.argmax(found, axis=-1), tf.argmax(targets, axis=-1))
    return tf.stack([loss * tf.cast(tf.shape(targets)[0], tf.float32), tf.reduce_sum(tf.cast(right, tf.float32))])


def _stack(variables: tuple[keras.Variable, ...]) -> keras.Variable:
    return keras.Variable(np.stack([np.asarray(each) for each in variables]), name=variables[0].name)


def _with_rates(optimizer: keras.optimizers.Optimizer, rates: keras.Variable) -> keras.optimizers.Optimizer:
    """The same optimizer for stacked variables, (models, ...), with a learning rate (models,) for each model.

    All optimizers of a study update every number of a weight by itself, so that no model sees the others. Factors of
    single weights, see `compile_model`, are not kept: dense heads have none.
    """
    # Keras's own class: the update in one operation, see `compile_model`, takes one rate.
    kind = next(each for each in type(optimizer).__mro__ if each.__module__.startswith("keras."))
    decay = optimizer.weight_decay

    class Stacked(kind):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            own = keras.ops.reshape(rates, (-1, *[1] * (len(variable.shape) - 1)))
            if decay:
                variable.assign(variable - variable * decay * own)
            super().update_step(gradient, variable, own)

    found = Stacked.from_config(optimizer.get_config())
    found.weight_decay = None  # Keras would decay all by one rate
    return found
