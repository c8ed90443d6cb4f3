"""Students in the formats of other runtimes, each file compared with the student it was made from.

    distill.export("runs/demo", "onnx")   # → runs/demo/student/onnx

`make` holds the command; MODEL_FORMATS says which function writes which kind of student. `onnx`, `gguf`, `bert` and
`int8` write files, `running` runs them, `parity` compares and measures them.
"""
