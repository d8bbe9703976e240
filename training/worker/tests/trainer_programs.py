"""Programs that leave the loop to a trainer."""

from __future__ import annotations

# Ends the worker inside the trainer's loop once it has logged the step it is told.
DEADLY = """
import os, signal
if job.params.get("die_at") is not None:
    told = job._events.send
    def send(event, **fields):
        told(event, **fields)
        if event == "metrics" and fields["step"] == job.params["die_at"]:
            os.kill(os.getpid(), job.params["signal"])
    job._events.send = send
"""

TRANSFORMERS = """
import os
os.environ["CUDA_VISIBLE_DEVICES"] = ""
import torch, transformers
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
transformers.set_seed(3)
model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=2, n_head=2,
                                   bos_token_id=0, eos_token_id=0, resid_pdrop=0.2, embd_pdrop=0.2, attn_pdrop=0.2))
g = torch.Generator().manual_seed(5)
rows = torch.randint(0, 32, (40, 8), generator=g)
data = [{"input_ids": r, "labels": r} for r in rows]
args = TrainingArguments(output_dir=str(job.dir / "out"), num_train_epochs=3, per_device_train_batch_size=4,
                         gradient_accumulation_steps=2, logging_steps=1, save_strategy="no", report_to=[],
                         learning_rate=0.01, lr_scheduler_type="cosine", disable_tqdm=True, use_cpu=True)
trainer = Trainer(model=model, args=args, train_dataset=data, callbacks=[job.callback("transformers")])
trainer.train(resume_from_checkpoint=job.load())
import hashlib
digest = hashlib.sha256(repr([(k, v.tolist()) for k, v in model.state_dict().items()]).encode()).hexdigest()
job.finish(digest=digest)
"""

LIGHTNING = """
import hashlib, warnings
warnings.simplefilter("ignore")
import torch, lightning as L
L.seed_everything(3)
class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 2))
    def training_step(self, batch, index):
        loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return loss
    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]
g = torch.Generator().manual_seed(5)
x = torch.randn(44, 4, generator=g)
data = torch.utils.data.TensorDataset(x, (x.sum(1) > 0).long())
loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
outlast = job.callback("lightning")
trainer = L.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
                    enable_progress_bar=False, enable_model_summary=False, callbacks=[outlast],
                    default_root_dir=str(job.dir))
net = Net()
trainer.fit(net, outlast.loader(loader), ckpt_path=outlast.ckpt_path)
digest = hashlib.sha256(repr([(k, v.tolist()) for k, v in net.state_dict().items()]).encode()).hexdigest()
job.finish(digest=digest)
"""

KERAS = """
import hashlib, os
os.environ.setdefault("KERAS_BACKEND", "torch")
import keras, numpy
keras.utils.set_random_seed(3)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dropout(0.2),
                          keras.layers.Dense(2)])
model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
rng = numpy.random.default_rng(5)
x = rng.normal(size=(44, 4)).astype("float32")
model.fit(x, (x.sum(1) > 0).astype("int32"), batch_size=8, epochs=4, verbose=0, callbacks=[job.callback("keras")])
digest = hashlib.sha256(repr([w.tolist() for w in model.get_weights()]).encode()).hexdigest()
job.finish(digest=digest)
"""
