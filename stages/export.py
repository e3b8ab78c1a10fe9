"""Writes a trained model as files that need nothing of this project: `python -m stages.export <model>`.

`<model>.keras` and `<model>.onnx` take uint8 images and return probabilities: they include the preprocessing and the
class names. Both files are read again and must predict what the model predicted for its test images.
"""

import argparse
from pathlib import Path

from stages.artifacts.reports import EXPORTED_MODELS
from stages.core.command import run_command
from stages.core.errors import UserError
from stages.core.files import atomic_file
from stages.core.wording import counted
from stages.training.exported import RECORD_KEY, onnx_predictor, record_checksum
from stages.training.stored_models import find_model


def main(arguments: argparse.Namespace) -> int:
    record = find_model("export", arguments.model)
    # Imported after the checks, because TensorFlow takes seconds.
    from stages.backbones.onnx_export import write_onnx
    from stages.training.exporting import (
        keras_predictor,
        prepare_export,
        write_keras,
        write_onnx_metadata,
    )

    export = prepare_export(record, "float32")
    paths = [arguments.folder / f"{record.name}.{suffix}" for suffix in ("keras", "onnx")]
    with atomic_file(paths[0]) as keras_file, atomic_file(paths[1]) as onnx_file:
        write_keras(export.model, export.metadata, keras_file)
        try:
            write_onnx(export.model, onnx_file)
            write_onnx_metadata(onnx_file, export.metadata | {RECORD_KEY: record_checksum(record.name)})
            predict_with_onnx = onnx_predictor(onnx_file)
        except Exception as error:  # the converter and the runtime raise nearly anything on layers they do not know
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{record.name} cannot be converted to ONNX ({reason}). Use another backbone to export it."
            ) from None
        differences, problem = export.compare(keras_predictor(keras_file), predict_with_onnx)
        if problem:
            raise UserError(
                f"{record.name} was not exported: {problem}. Run `dvc repro`, or if precision is bfloat16, set float32."
            )
    files = " and ".join(f"{path} ({path.stat().st_size / 1e6:.1f} MB)" for path in paths)
    print(
        f"export {record.name}: {files}; probabilities of {counted(len(export.pixels), 'test image')} differ from the "
        f"stored ones by at most {differences[0]:.1e} and {differences[1]:.1e} (tolerance for {export.precision}: "
        f"{export.tolerance:g})"
    )
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser("export", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", help="a network, head, probe or fine-tune of the study")
    default = f"where to write it (default: {EXPORTED_MODELS})"
    parser.add_argument("--folder", type=Path, default=EXPORTED_MODELS, help=default)
    run_command(parser, main)
