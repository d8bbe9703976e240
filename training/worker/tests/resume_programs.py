"""Programs as people write them, small: each must come to the same result however often it is killed."""

from __future__ import annotations

TORCH = """
import numpy
import torch
from torch import nn
from torch.utils.data import (BatchSampler, DataLoader, IterableDataset, RandomSampler, Subset, TensorDataset,
                              WeightedRandomSampler)

def mlp(width=8, dropout=0.2):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 2))

generator = torch.Generator().manual_seed(11)
features = torch.randn(44, 4, generator=generator)
labels = (features.sum(1) > 0).long()
data = TensorDataset(features, labels)

def fit(batch, model, optimizer):
    x, y = batch
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
"""

MODEL = """
model = mlp()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
job.track(model=model, optimizer=optimizer)
"""


def batches(loader: str, setup: str = MODEL, epochs: int = 3) -> str:
    """A program that trains on a data loader."""
    return f"""{TORCH}{setup}
loader = {loader}
for batch in job.batches(loader, epochs={epochs}):
    job.log(loss=fit(batch, model, optimizer), epoch=job.epoch)
job.finish(digest=digest(model, optimizer))
"""


def scheduled(
    make: str, after: str = "scheduler.step()", optimizer: str = "SGD(model.parameters(), lr=0.1, momentum=0.9)"
) -> str:
    """A program with a learning rate schedule."""
    return f"""{TORCH}
from torch.optim import lr_scheduler
model = mlp()
optimizer = torch.optim.{optimizer}
scheduler = {make}
job.track(model=model, optimizer=optimizer, scheduler=scheduler)
for step in job.steps(20):
    pick = torch.randint(0, 44, (8,))
    loss = fit((features[pick], labels[pick]), model, optimizer)
    {after}
    job.log(loss=loss, lr=optimizer.param_groups[0]["lr"])
job.finish(digest=digest(model, optimizer, scheduler))
"""


AUGMENTING = """
class Augmenting(torch.utils.data.Dataset):
    def __init__(self, own=None): self.rng = own
    def __len__(self): return 44
    def __getitem__(self, i):
        noise = torch.randn(4) * 0.1 + random.gauss(0, 0.1)
        if self.rng is not None: noise = noise + float(self.rng.normal(0, 0.1))
        return features[i] + noise, labels[i]
"""

PROGRAMS: dict[str, str] = {
    "steps with dropout and random picks": scheduled("lr_scheduler.StepLR(optimizer, 7)"),
    "batches with shuffle": batches("DataLoader(data, batch_size=8, shuffle=True)"),
    "batches that drop the last": batches("DataLoader(data, batch_size=8, shuffle=True, drop_last=True)"),
    "a loader with a generator of its own": batches(
        "DataLoader(data, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(3))"
    ),
    "a random sampler with replacement": batches(
        "DataLoader(data, batch_size=4, sampler=RandomSampler(data, replacement=True, num_samples=40))"
    ),
    "a random sampler with replacement and a generator": batches(
        "DataLoader(data, batch_size=4, sampler=RandomSampler(data, replacement=True, num_samples=40,"
        " generator=torch.Generator().manual_seed(5)))"
    ),
    "a weighted sampler": batches(
        "DataLoader(data, batch_size=8, sampler=WeightedRandomSampler((labels + 0.5).tolist(), 40))"
    ),
    "a batch sampler": batches(
        "DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data), batch_size=6, drop_last=False))"
    ),
    "two loading processes": batches("DataLoader(data, batch_size=8, shuffle=True, num_workers=2)", epochs=2),
    "two loading processes that augment": batches(
        "DataLoader(Augmenting(), batch_size=8, shuffle=True, num_workers=2,"
        " generator=torch.Generator().manual_seed(3))",
        AUGMENTING + MODEL,
        epochs=2,
    ),
    "persistent loading processes that augment": batches(
        "DataLoader(Augmenting(), batch_size=8, shuffle=True, num_workers=2, persistent_workers=True)",
        AUGMENTING + MODEL,
        epochs=2,
    ),
    "augmentation in the loop's own process": batches(
        "DataLoader(Augmenting(), batch_size=8, shuffle=True)", AUGMENTING + MODEL
    ),
    "augmentation by a generator of the data set": batches(
        "DataLoader(Subset(Augmenting(numpy.random.default_rng(9)), range(40)), batch_size=8, shuffle=True)",
        AUGMENTING + MODEL,
    ),
    "augmentation by a generator that only the program knows": batches(
        "DataLoader(Drawing(), batch_size=8, shuffle=True)",
        """
class Drawing(torch.utils.data.Dataset):
    def __len__(self): return 44
    def __getitem__(self, i): return features[i] + float(rng.normal(0, 0.1)), labels[i]
rng = numpy.random.RandomState(9)
model = mlp()
optimizer = torch.optim.Adam(model.parameters())
job.track(model=model, optimizer=optimizer, rng=rng)
""",
    ),
    "a generator of both the loader and the loop": f"""{TORCH}{MODEL}
g = torch.Generator().manual_seed(3)
loader = DataLoader(data, batch_size=8, shuffle=True, generator=g)
for x, y in job.batches(loader, epochs=3):
    job.log(loss=fit((x + torch.randn(4, generator=g) * 0.1, y), model, optimizer))
job.finish(digest=digest(model, optimizer))
""",
    "a stream of samples": f"""{TORCH}
class Stream(IterableDataset):
    def __iter__(self):
        order = list(range(44))
        random.shuffle(order)
        for i in order: yield features[i] + torch.randn(4) * 0.1, labels[i]
{MODEL}
for batch in job.batches(DataLoader(Stream(), batch_size=8), epochs=3):
    job.log(loss=fit(batch, model, optimizer))
job.finish(digest=digest(model, optimizer))
""",
    "a stream read by two processes": f"""{TORCH}
class Stream(IterableDataset):
    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        for i in range(worker.id, 44, worker.num_workers): yield features[i] + torch.randn(4) * 0.1, labels[i]
{MODEL}
for batch in job.batches(DataLoader(Stream(), batch_size=8, num_workers=2), epochs=2):
    job.log(loss=fit(batch, model, optimizer))
job.finish(digest=digest(model, optimizer))
""",
    "random numbers of three libraries in the loop": f"""{TORCH}{MODEL}
for batch in job.batches(DataLoader(data, batch_size=8, shuffle=True), epochs=3):
    x = batch[0] + random.gauss(0, 0.1) + numpy.random.normal(0, 0.1) + torch.randn(()) * 0.1
    if numpy.random.rand() < 0.3: x = x.flip(0)
    job.log(loss=fit((x, batch[1]), model, optimizer), draw=random.random())
job.finish(digest=digest(model, optimizer))
""",
    "AdamW with cosine annealing": scheduled(
        "lr_scheduler.CosineAnnealingLR(optimizer, 20)", optimizer="AdamW(model.parameters(), lr=0.01, amsgrad=True)"
    ),
    "ReduceLROnPlateau": scheduled("lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)", "scheduler.step(loss)"),
    "LambdaLR": scheduled("lr_scheduler.LambdaLR(optimizer, lambda n: 0.9**n)"),
    "SequentialLR": scheduled(
        "lr_scheduler.SequentialLR(optimizer, [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=4),"
        " lr_scheduler.ExponentialLR(optimizer, 0.9)], milestones=[4])"
    ),
    "OneCycleLR": scheduled("lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=20)"),
    "CyclicLR, which keeps a function": scheduled("lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, step_size_up=4)"),
    "a disabled gradient scaler": f"""{TORCH}{MODEL}
scaler = torch.cuda.amp.GradScaler(enabled=False)
job.track(scaler=scaler)
for x, y in job.batches(DataLoader(data, batch_size=8, shuffle=True), epochs=3):
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    job.log(loss=loss)
job.finish(digest=digest(model, optimizer))
""",
    "a moving average in a dict": f"""{TORCH}{MODEL}
average = {{k: v.clone() for k, v in model.state_dict().items()}}
held = average["0.weight"]
job.track(average=average)
for batch in job.batches(DataLoader(data, batch_size=8, shuffle=True), epochs=3):
    job.log(loss=fit(batch, model, optimizer))
    for k, v in model.state_dict().items(): average[k].mul_(0.9).add_(v, alpha=0.1)
assert average["0.weight"] is held
job.finish(digest=digest(model, optimizer, average))
""",
    "a moving average as AveragedModel": f"""{TORCH}{MODEL}
average = torch.optim.swa_utils.AveragedModel(model)
job.track(average=average)
for batch in job.batches(DataLoader(data, batch_size=8, shuffle=True), epochs=3):
    job.log(loss=fit(batch, model, optimizer))
    average.update_parameters(model)
job.finish(digest=digest(model, optimizer, average))
""",
    "models and optimizers in lists": f"""{TORCH}
models = [mlp(), mlp(6)]
optimizers = [torch.optim.Adam(m.parameters()) for m in models]
job.track(models=models, optimizers=optimizers)
for batch in job.batches(DataLoader(data, batch_size=8, shuffle=True), epochs=3):
    losses = [fit(batch, m, o) for m, o in zip(models, optimizers) if random.random() < 0.7]
    job.log(loss=sum(losses))
job.finish(digest=digest(models, optimizers))
""",
    "a generator against a discriminator": f"""{TORCH}
G, D = nn.Linear(3, 4), nn.Linear(4, 1)
g, d = torch.optim.Adam(G.parameters(), lr=0.01), torch.optim.RMSprop(D.parameters(), lr=0.01)
job.track(G=G, D=D, g=g, d=d)
for x, _ in job.batches(DataLoader(data, batch_size=8, shuffle=True), epochs=3):
    fake = G(torch.randn(len(x), 3))
    lost = nn.functional.softplus(-D(x)).mean() + nn.functional.softplus(D(fake.detach())).mean()
    d.zero_grad(); lost.backward(); d.step()
    won = nn.functional.softplus(-D(fake)).mean()
    if job.step % 2:
        g.zero_grad(); won.backward(); g.step()
    job.log(d=lost, g=won)
job.finish(digest=digest(G, D, g, d))
""",
    "accumulated gradients over batches": f"""{TORCH}{MODEL}
for x, y in job.batches(DataLoader(data, batch_size=4, shuffle=True), epochs=3):
    loss = nn.functional.cross_entropy(model(x), y) / 4
    loss.backward()
    if (job.step + 1) % 4 == 0:
        optimizer.step()
        optimizer.zero_grad()
    job.log(loss=loss)
job.finish(digest=digest(model, optimizer))
""",
    "gradients that stay zero, and a layer that is used at times": f"""{TORCH}
layers = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)])
optimizer = torch.optim.SGD(layers.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
job.track(layers=layers, optimizer=optimizer)
for x, y in job.batches(DataLoader(data, batch_size=8, shuffle=True), epochs=4):
    optimizer.zero_grad(set_to_none=False)
    loss = nn.functional.cross_entropy(layers[job.step // 3 % 2](x), y)
    loss.backward()
    optimizer.step()
    job.log(loss=loss)
job.finish(digest=digest(layers, optimizer))
""",
    "tensors in a list, without a module": f"""{TORCH}
weights = [torch.zeros(4, 2, requires_grad=True), torch.zeros(2, requires_grad=True)]
optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9)
job.track(weights=weights, optimizer=optimizer)
for x, y in job.batches(DataLoader(data, batch_size=8, shuffle=True), epochs=3):
    loss = nn.functional.cross_entropy(x @ weights[0] + weights[1], y)
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    job.log(loss=loss)
job.finish(digest=digest(weights, optimizer))
""",
    "tied weights and batch normalisation": f"""{TORCH}
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
        self.b.weight = self.a.weight
    def forward(self, x): return self.out(self.norm(self.b(self.a(x))))
model = Tied()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
job.track(model=model, optimizer=optimizer)
for batch in job.batches(DataLoader(data, batch_size=8, shuffle=True), epochs=3):
    job.log(loss=fit(batch, model, optimizer))
job.finish(digest=digest(model, optimizer))
""",
    "nothing tracked": f"""{TORCH}
model = mlp()
optimizer = torch.optim.AdamW(model.parameters())
for batch in job.batches(DataLoader(data, batch_size=8, shuffle=True), epochs=2):
    job.log(loss=fit(batch, model, optimizer))
job.finish(digest=digest(model, optimizer))
""",
    "numpy alone": """
import numpy
weights, velocity = numpy.zeros(4), {"v": numpy.zeros(4)}
rng, seen = numpy.random.default_rng(3), {"best": float("inf")}
job.track(weights=weights, velocity=velocity, rng=rng, seen=seen)
for step in job.steps(20):
    x = rng.normal(size=4) + numpy.random.rand(4)
    velocity["v"] *= 0.9
    velocity["v"] += x - weights
    weights += 0.1 * velocity["v"]
    seen["best"] = min(seen["best"], float(abs(weights).sum()))
    job.log(w=weights[0], best=seen["best"])
job.finish(digest=digest(weights, velocity, seen))
""",
    "Python alone": """
state, history, rng = {"w": 0.0, 3: (1, 2)}, [], random.Random(5)
job.track(state=state, history=history, rng=rng)
for word in job.batches(["a", "bb", "ccc", "dddd"], epochs=5):
    state["w"] += rng.gauss(0, 1) * len(word) + random.random()
    state[3] = (job.step, word)
    history.append(word)
    job.log(w=state["w"], word=word)
job.finish(digest=digest(state, history))
""",
}
