"""Graph layers beside PyTorch Geometric's, forward and backward: time and peak memory.

32 graphs of 500 and of 2,000 nodes, a tenth of them dead, each with the 20 neighbours of the largest absolute
correlation; 64 features, 4 heads, one thread, processor milliseconds. What a loader does once is not timed: PyG has
the list of edges (and a sparse matrix that is normalised already, where the name says so), our layers a graph that
another layer used before; what making that takes is printed too. Each runs in a process of its own, by turns, and the
least of its times is printed. Memory is what a step holds beyond what was there before, at most.

Usage: PYTHONPATH=. python benchmarks/graph.py [LAYERS] [--python PATH] [--nodes 500 2000] [--neighbours 20]
    [--rounds 5]
"""

import ctypes
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from worker import Worker, arguments, interpreter

GRAPHS, HIDDEN, HEADS, DEAD = 32, 64, 4, 0.1
Step = Callable[[], object]
LAYERS: dict[str, dict[str, str]] = {  # by layer: who has it, and what they import
    "gatv2": {"qtorch": "torch", "pyg": "torch_geometric"},
    "gcn": {"qtorch": "torch", "qtorch-dense": "torch", "pyg": "torch_geometric", "pyg-matrix": "torch_geometric"},
    "attention": {"qtorch": "torch", "qtorch-dense": "torch", "torch": "torch"},
}


def neighbours(nodes: int, count: int) -> tuple[Tensor, Tensor]:
    """The most correlated of each node's date, `[B, N, K]`, and which nodes are alive."""
    torch.manual_seed(0)
    alive = torch.rand(GRAPHS, nodes) >= DEAD
    tables = []
    for b in range(GRAPHS):
        returns = torch.randn(60, 5) @ torch.randn(5, nodes) + 2 * torch.randn(60, nodes)
        likeness = torch.corrcoef(returns.T).abs()
        likeness[:, ~alive[b]] = -1.0
        tables.append(likeness.fill_diagonal_(-2.0).topk(count, -1).indices)
    return torch.stack(tables), alive


def edges(table: Tensor, alive: Tensor) -> Tensor:
    """Sources and targets over the batch, of edges whose ends are alive."""
    B, N, K = table.shape
    first = torch.arange(B)[:, None, None] * N
    source = (table + first).view(-1)
    target = torch.arange(B * N).repeat_interleave(K)
    there = alive.view(-1)[source] & alive.view(-1)[target]
    return torch.stack([source[there], target[there]])


def ours(layer: str, dense: bool, x: Tensor, table: Tensor, alive: Tensor) -> tuple[nn.Module, Step, Step]:
    from qtorch.nn.graph import GCN, GATv2, Graph, GraphTransformer

    def make() -> Graph:
        return Graph(table, torch.ones_like(table, dtype=torch.bool), alive)

    graph = make()
    module = {
        "gatv2": lambda: GATv2(HIDDEN, HIDDEN, HEADS),
        "gcn": lambda: GCN(HIDDEN, HIDDEN, dense=dense),
        "attention": lambda: GraphTransformer(HIDDEN, HIDDEN, HEADS, self_loops=True, dense=dense),
    }[layer]()
    return module, lambda: module(x, graph), lambda: make().looped.links


def pyg(layer: str, matrix: bool, x: Tensor, table: Tensor, alive: Tensor) -> tuple[nn.Module, Step, Step]:
    from torch_geometric.nn import GATv2Conv, GCNConv
    from torch_geometric.nn.conv.gcn_conv import gcn_norm

    given = edges(table, alive)
    module = GATv2Conv(HIDDEN, HIDDEN // HEADS, HEADS) if layer == "gatv2" else GCNConv(HIDDEN, HIDDEN)
    live = alive[..., None].float()
    if matrix:
        index, weight = gcn_norm(given, num_nodes=alive.numel())
        module = GCNConv(HIDDEN, HIDDEN, normalize=False)
        given = torch.sparse_coo_tensor(index.flip(0), weight, (alive.numel(),) * 2).to_sparse_csr()
    return module, lambda: module(x.view(-1, HIDDEN), given).view(x.shape) * live, lambda: edges(table, alive)


class Bare(nn.Module):
    """Masked attention over all pairs, with a float mask made before, between linear maps."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask
        self.qkv, self.out = nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        """The nodes' features after attention."""
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        return self.out(mixed.transpose(1, 2).flatten(2))


def bare(x: Tensor, table: Tensor, alive: Tensor) -> tuple[nn.Module, Step, Step]:
    def mask() -> Tensor:
        wall = torch.full((*alive.shape, alive.shape[1]), -1e30).scatter_(2, table, 0.0)
        wall.masked_fill_(~alive[:, None], -1e30).diagonal(dim1=1, dim2=2).fill_(0.0)
        return wall.unsqueeze(1)

    module, live = Bare(mask()), alive[..., None].float()
    return module, lambda: module(x) * live, mask


def memory(which: str) -> float:
    """In MB: `VmRSS`, what is held now, or `VmHWM`, the most since the last reset."""
    found = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {which}; memory is measured on Linux.")
    return int(found[1]) / 1024


def serve(name: str) -> None:
    """A worker's side: builds one layer, says what memory a step takes, then times steps, in milliseconds."""
    torch.set_num_threads(1)
    layer, library, nodes, count = name.split(":")
    table, alive = neighbours(int(nodes), int(count))
    x = torch.randn(GRAPHS, int(nodes), HIDDEN, requires_grad=True)
    if library.startswith("qtorch"):
        module, forward, prepare = ours(layer, library.endswith("dense"), x, table, alive)
    elif library.startswith("pyg"):
        module, forward, prepare = pyg(layer, library.endswith("matrix"), x, table, alive)
    else:
        module, forward, prepare = bare(x, table, alive)

    def step() -> None:
        x.grad = None
        module.zero_grad(set_to_none=True)
        forward().square().mean().backward()

    step()
    x.grad = None
    module.zero_grad(set_to_none=True)
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed goes back to the system, not to the next step
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    step()
    print(json.dumps({"torch": torch.__version__, "memory": memory("VmHWM") - before}), flush=True)
    for line in sys.stdin:
        if not line.strip():
            break
        task = {"step": step, "prepare": prepare}[json.loads(line)[0]]
        start = time.process_time()
        task()
        print(json.dumps(1e3 * (time.process_time() - start)), flush=True)
    print(json.dumps(0.0), flush=True)


def main() -> None:
    parser = arguments(__doc__, LAYERS, "", 5)
    parser.add_argument("--nodes", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--neighbours", type=int, default=20)
    args = parser.parse_args()
    if args.worker:
        serve(args.worker)
        return
    if unknown := set(args.names) - set(LAYERS):
        parser.error(f"nothing is called {', '.join(sorted(unknown))}.")
    for nodes in args.nodes:
        for layer in args.names or LAYERS:
            compare(layer, nodes, args.neighbours, args.rounds, [sys.executable, *args.python])


def compare(layer: str, nodes: int, count: int, rounds: int, pythons: list[str]) -> None:
    """Prints a line for each library that has the layer."""
    workers = {}
    for library, needs in LAYERS[layer].items():
        if python := interpreter(needs, pythons):
            workers[library] = Worker(__file__, f"{layer}:{library}:{nodes}:{count}", python, 1)
        else:
            print(f"{library}: no interpreter has it; pass one by --python")
    least: dict[tuple[str, str], float] = {}
    for _ in range(rounds):
        for library, worker in workers.items():
            for what in ("step", "prepare"):
                took = worker.run(what)
                least[library, what] = min(took, least.get((library, what), took))
    for library, worker in workers.items():
        took = least[library, "step"]
        print(
            f"{layer:<10} {nodes:>5} nodes  {library:<13} {took:8.1f} ms (x{took / least['qtorch', 'step']:.2f})"
            f"  making {least[library, 'prepare']:7.1f} ms  memory {worker.facts['memory']:7.0f} MB",
            flush=True,
        )
        worker.stop()


if __name__ == "__main__":
    main()
