"""Which operators TensorFlow's graphs may hold: those that compute, and reach neither files nor Python.

A graph is a program. What it would do is read from its protocol buffers, before TensorFlow is given any of
it: every node of the graph and of each function in it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from odtrain_runtime.errors import ModelFileError

logger = logging.getLogger("odtrain.runtime")  # below odtrain's, which shows it where odtrain runs

ONLY_IF_TRUSTED = (
    "A graph of these may read and write your files. Only if you trust whoever made it: "
    "trust_source=true, or load(..., trusted=True)."
)
SHOWN = 10
"""Operators that a message names."""

COMPUTE = frozenset(
    # what a graph consists of
    """
    Assert CheckNumerics CheckNumericsV2 Const ControlTrigger EnsureShape Identity IdentityN NoOp
    Placeholder PlaceholderV2 PlaceholderWithDefault PreventGradient Snapshot StopGradient _Arg
    _Retval
    """
    # control flow and calls of functions, each of which is looked into
    """
    Case Enter Exit FakeParam For If LoopCond Merge NextIteration PartitionedCall RefEnter RefExit
    RefMerge RefNextIteration RefSelect RefSwitch Select SelectV2 StatefulPartitionedCall
    StatelessCase StatelessIf StatelessWhile Switch Where While _SwitchN
    """
    # variables, tables and queues in memory
    """
    Assign AssignAdd AssignAddVariableOp AssignSub AssignSubVariableOp AssignVariableOp
    DestroyResourceOp DestroyTemporaryVariable DisableCopyOnRead EmptyTensorList FIFOQueue FIFOQueueV2 HashTable
    HashTableV2 InitializeTable InitializeTableV2 IsVariableInitialized LookupTableExport
    LookupTableExportV2 LookupTableFind LookupTableFindV2 LookupTableImport LookupTableImportV2
    LookupTableInsert LookupTableInsertV2 LookupTableSize LookupTableSizeV2 MutableDenseHashTable
    MutableDenseHashTableV2 MutableHashTable MutableHashTableOfTensors MutableHashTableOfTensorsV2
    MutableHashTableV2 PaddingFIFOQueue PaddingFIFOQueueV2 QueueClose QueueCloseV2 QueueDequeue
    QueueDequeueMany QueueDequeueManyV2 QueueDequeueUpTo QueueDequeueUpToV2 QueueDequeueV2
    QueueEnqueue QueueEnqueueMany QueueEnqueueManyV2 QueueEnqueueV2 QueueSize QueueSizeV2
    RandomShuffleQueue RandomShuffleQueueV2 ReadVariableOp RefIdentity ResourceGather
    ResourceGatherNd Stack StackClose StackCloseV2 StackPop StackPopV2 StackPush StackPushV2 StackV2
    TemporaryVariable TensorArray TensorArrayClose TensorArrayCloseV2 TensorArrayCloseV3
    TensorArrayConcat TensorArrayConcatV2 TensorArrayConcatV3 TensorArrayGather TensorArrayGatherV2
    TensorArrayGatherV3 TensorArrayPack TensorArrayRead TensorArrayReadV2 TensorArrayReadV3
    TensorArrayScatter TensorArrayScatterV2 TensorArrayScatterV3 TensorArraySize TensorArraySizeV2
    TensorArraySizeV3 TensorArraySplit TensorArraySplitV2 TensorArraySplitV3 TensorArrayUnpack
    TensorArrayV2 TensorArrayV3 TensorArrayWrite TensorArrayWriteV2 TensorArrayWriteV3
    TensorListConcat TensorListConcatLists TensorListConcatV2 TensorListElementShape
    TensorListFromTensor TensorListGather TensorListGetItem TensorListLength TensorListPopBack
    TensorListPushBack TensorListPushBackBatch TensorListReserve TensorListResize TensorListScatter
    TensorListScatterIntoExistingList TensorListScatterV2 TensorListSetItem TensorListSplit
    TensorListStack VarHandleOp VarIsInitializedOp Variable VariableShape VariableV2
    """
    # shapes and places
    """
    BatchToSpace BatchToSpaceND Bitcast BroadcastArgs BroadcastGradientArgs BroadcastTo Cast Concat
    ConcatOffset ConcatV2 ConjugateTranspose DataFormatDimMap DataFormatVecPermute DepthToSpace Diag
    DiagPart DynamicPartition DynamicStitch ExpandDims ExtractGlimpse ExtractGlimpseV2
    ExtractImagePatches Fill Gather GatherNd GatherV2 InvertPermutation LinSpace ListDiff LowerBound
    MatrixBandPart MatrixDiag MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3 MatrixDiagV2
    MatrixDiagV3 MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 MirrorPad OneHot OnesLike Pack Pad
    PadV2 ParallelConcat ParallelDynamicStitch RaggedGather RaggedRange RaggedTensorFromVariant
    RaggedTensorToSparse RaggedTensorToTensor RaggedTensorToVariant Range Rank Reshape
    ResourceScatterAdd ResourceScatterNdAdd ResourceScatterNdUpdate ResourceScatterUpdate
    ResourceStridedSliceAssign Reverse ReverseSequence ReverseV2 Roll ScatterAdd ScatterNd
    ScatterNdAdd ScatterNdNonAliasingAdd ScatterNdUpdate ScatterSub ScatterUpdate Shape ShapeN Size
    Slice SpaceToBatch SpaceToBatchND SpaceToDepth SparseToDense Split SplitV Squeeze StridedSlice
    StridedSliceAssign TensorScatterAdd TensorScatterMax TensorScatterMin TensorScatterSub
    TensorScatterUpdate TensorStridedSliceUpdate Tile Transpose Unique UniqueV2 UniqueWithCounts
    UniqueWithCountsV2 Unpack UnravelIndex UpperBound ZerosLike
    """
    # arithmetic
    """
    Abs AccumulateNV2 Acos Acosh Add AddN AddV2 All Angle Any ApproximateEqual ArgMax ArgMin Asin
    Asinh Atan Atan2 Atanh BatchMatMul BatchMatMulV2 BatchMatMulV3 Betainc Bincount BitwiseAnd
    BitwiseOr BitwiseXor Bucketize Ceil Cholesky ClipByValue Complex ComplexAbs Conj Cos Cosh Cross
    Cumprod Cumsum CumulativeLogsumexp DenseBincount Digamma Div DivNoNan Einsum Equal Erf Erfc
    Erfinv EuclideanNorm Exp Expm1 FFT FFT2D Floor FloorDiv FloorMod Greater GreaterEqual
    HistogramFixedWidth IFFT IFFT2D IRFFT IRFFT2D Igamma Igammac Imag InTopK InTopKV2 Inv InvGrad
    Invert IsFinite IsInf IsNan L2Loss LeftShift Less LessEqual Lgamma Log Log1p LogicalAnd
    LogicalNot LogicalOr MatMul MatrixDeterminant MatrixInverse MatrixSolve Max Maximum Mean Min
    Minimum Mod Mul MulNoNan Ndtri Neg NextAfter NotEqual NthElement PopulationCount Pow Prod Qr
    RFFT RFFT2D Real RealDiv Reciprocal ReciprocalGrad RightShift Rint Round Rsqrt RsqrtGrad
    SegmentMax SegmentMean SegmentMin SegmentProd SegmentSum Sign Sin Sinh SparseMatMul Sqrt
    SqrtGrad Square SquaredDifference Sub Sum Svd Tan Tanh TanhGrad TopK TopKV2 TruncateDiv
    TruncateMod UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum Xdivy
    Xlog1py Xlogy
    """
    # networks
    """
    AvgPool AvgPool3D BatchNormWithGlobalNormalization BiasAdd BiasAddV1 Conv Conv2D
    Conv2DBackpropInput Conv2DBackpropInputV2 Conv3D Conv3DBackpropInputV2 DepthwiseConv2dNative
    Dequantize Dilation2D Elu FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars
    FakeQuantWithMinMaxVarsPerChannel FractionalAvgPool FractionalMaxPool FusedBatchNorm
    FusedBatchNormV2 FusedBatchNormV3 FusedPadConv2D FusedResizeAndPadConv2D LRN LeakyRelu
    LogSoftmax MaxPool MaxPool3D MaxPoolV2 MaxPoolWithArgmax QuantizeAndDequantize
    QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 QuantizeAndDequantizeV4
    QuantizeDownAndShrinkRange QuantizeV2 QuantizedAdd QuantizedAvgPool QuantizedBiasAdd
    QuantizedConcat QuantizedConcatV2 QuantizedConv2D QuantizedDepthwiseConv2D QuantizedMatMul
    QuantizedMaxPool QuantizedMul QuantizedRelu QuantizedRelu6 QuantizedReshape
    QuantizedResizeBilinear Relu Relu6 RequantizationRange Requantize Selu Sigmoid Softmax
    SoftmaxCrossEntropyWithLogits Softplus Softsign SparseSoftmaxCrossEntropyWithLogits
    _FusedBatchNormEx _FusedConv2D _FusedDepthwiseConv2dNative _FusedMatMul
    """
    # pictures and boxes
    """
    AdjustContrast AdjustContrastv2 AdjustHue AdjustSaturation CombinedNonMaxSuppression
    CropAndResize DecodeAndCropJpeg DecodeBase64 DecodeBmp DecodeGif DecodeImage DecodeJpeg
    DecodePaddedRaw DecodePng DecodeRaw DrawBoundingBoxes DrawBoundingBoxesV2 EncodeBase64
    EncodeJpeg EncodePng ExtractJpegShape GenerateBoundingBoxProposals HSVToRGB
    ImageProjectiveTransformV2 ImageProjectiveTransformV3 NonMaxSuppression NonMaxSuppressionV2
    NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5 NonMaxSuppressionWithOverlaps
    RGBToHSV ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor
    SampleDistortedBoundingBox SampleDistortedBoundingBoxV2 ScaleAndTranslate
    StatelessSampleDistortedBoundingBox
    """
    # texts, examples and summaries, as values
    """
    AsString AudioSummary HistogramSummary ImageSummary MergeSummary ParseExample ParseExampleV2
    ParseSingleExample ParseTensor ReduceJoin RegexFullMatch RegexReplace ScalarSummary
    SerializeTensor ShardedFilename StaticRegexFullMatch StaticRegexReplace StringFormat StringJoin
    StringLength StringLower StringSplit StringSplitV2 StringStrip StringToHashBucketFast
    StringToNumber StringUpper Substr TensorSummary TensorSummaryV2
    """
    # chance
    """
    Multinomial RandomShuffle RandomStandardNormal RandomUniform RandomUniformInt
    StatelessMultinomial StatelessRandomGetAlg StatelessRandomGetKeyCounter
    StatelessRandomGetKeyCounterAlg StatelessRandomNormal StatelessRandomNormalV2
    StatelessRandomUniform StatelessRandomUniformInt StatelessRandomUniformIntV2
    StatelessRandomUniformV2 StatelessTruncatedNormal StatelessTruncatedNormalV2 TruncatedNormal
    """.split()
)
"""Operators that compute from what they are given; files, processes, networks and Python are out of reach."""
WEIGHTS = frozenset(("SaveV2", "RestoreV2", "MergeV2Checkpoints"))
"""Operators by which a SavedModel's own variables are written and read."""


def check_graph(path: Path, graph_def: Any, trusted: bool) -> None:
    """Look through a frozen graph.

    Raises:
        ModelFileError: it holds what does not compute alone, and is not `trusted`.
    """
    _tell(path, dict.fromkeys(_foreign(graph_def)), trusted)


def check_saved_model(path: Path, trusted: bool) -> None:
    """Look through the graphs of a SavedModel; the restoring of its own variables is let through.

    Raises:
        ModelFileError: one holds what does not compute alone, and it is not `trusted`.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString(path.read_bytes())
    by_objects = len(saved.meta_graphs) == 1 and saved.meta_graphs[0].HasField("object_graph_def")
    found: dict[str, None] = {}
    for meta in saved.meta_graphs:
        own = _functions_of_saver(meta) if by_objects else _nodes_of_saver(meta)
        found |= dict.fromkeys(_foreign(meta.graph_def, own))
    _tell(path.parent, found, trusted)


def _tell(path: Path, found: Collection[str], trusted: bool) -> None:
    if not found:
        return
    names = sorted(found)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    problem = f"holds operators that may do more than compute: {', '.join(names[:SHOWN])}{more}."
    if not trusted:
        raise ModelFileError(path, problem, ONLY_IF_TRUSTED)
    logger.warning(f"{path}: {problem} It is trusted, and run.")


def _foreign(graph_def: Any, own: Collection[tuple[str, str]] = ()) -> Iterator[str]:
    """Operators, and functions that are called without being there, that are not known to compute.

    Args:
        graph_def: whose nodes and functions are looked at.
        own: functions and nodes whose `WEIGHTS` are let through: (function, "") is all of a function,
            ("", node) a node of the graph.
    """
    from tensorflow.python.framework import op_def_registry

    bodies = {each.signature.name: each.node_def for each in graph_def.library.function}
    functions = {name for name in bodies if op_def_registry.get(name) is None}
    yield from (name for name in bodies if name not in functions)  # it would hide an operator
    for place, nodes in (("", graph_def.node), *bodies.items()):
        for node in nodes:
            spared = node.op in WEIGHTS and ((place, "") if place else ("", node.name)) in own
            if node.op not in COMPUTE and node.op not in functions and not spared:
                yield node.op
            yield from (name for name in _called(node) if name not in functions)


def _called(node: Any) -> Iterator[str]:
    """The functions that a node's attributes name."""
    for value in node.attr.values():
        kind = value.WhichOneof("value")
        called = [value.func] if kind == "func" else value.list.func if kind == "list" else ()
        for function in called:
            yield function.name
            yield from _called(function)  # which may be given functions itself


def _functions_of_saver(meta: Any) -> set[tuple[str, str]]:
    """Functions that nothing but the saver calls, in a SavedModel of objects: loading it runs them never."""
    saver = {node_of(meta.saver_def.save_tensor_name), meta.saver_def.restore_op_name}
    calls = [node for node in meta.graph_def.node if node.name in saver]
    others = [node for node in meta.graph_def.node if node.name not in saver]
    others += [node for each in meta.graph_def.library.function for node in each.node_def]
    own = {name for node in calls for name in _called(node)}
    elsewhere = {name for node in others for name in (node.op, *_called(node))}
    return {(name, "") for name in own - elsewhere - set(meta.object_graph_def.concrete_functions)}


def _nodes_of_saver(meta: Any) -> set[tuple[str, str]]:
    """Nodes of TensorFlow 1's saver that save, or restore from the file that the loader names, and no more."""
    nodes = {node.name: node for node in meta.graph_def.node}
    saver = meta.saver_def
    restoring = _behind(nodes, [saver.restore_op_name])
    saving = _behind(nodes, [node_of(saver.save_tensor_name)])
    asked = [each.name for signature in meta.signature_def.values() for each in _tensors(signature)]
    asked += [name for each in meta.collection_def.values() for name in each.node_list.value]
    others = [name for name in nodes if name not in restoring | saving]
    elsewhere = _behind(nodes, [*map(node_of, asked), *others])
    own = {name for name in restoring if _restores(nodes[name], saver.filename_tensor_name)}
    own |= {name for name in saving - restoring if nodes[name].op != "RestoreV2"}
    return {("", name) for name in own - elsewhere}


def _restores(node: Any, file: str) -> bool:
    return bool(node.op == "RestoreV2" and node_of(node.input[0]) == node_of(file))


def _tensors(signature: Any) -> Iterator[Any]:
    yield from signature.inputs.values()
    yield from signature.outputs.values()


def _behind(nodes: dict[str, Any], names: Iterable[str]) -> set[str]:
    """`names` and all nodes that they need."""
    found: set[str] = set()
    waiting = [name for name in names if name in nodes]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [each for each in map(node_of, nodes[name].input) if each in nodes]
    return found


def node_of(tensor: str) -> str:
    """`node` of `node:0` and of `^node`."""
    return tensor.removeprefix("^").partition(":")[0]
