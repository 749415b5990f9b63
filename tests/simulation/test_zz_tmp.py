from onehost.broker_config import routing
from .lives import copied, put_back
from .rules import Rules
from .world import World

def test_made_again(world: World) -> None:
    world.turn(); world.turn()
    rules = Rules(world)
    backup = copied(world)
    world.onehost.do("account", "alice", "delete")
    world.onehost.do("account", "alice", "create", {"domain": None})
    world.turn(); world.turn(); world.turn()
    put_back(world, *backup, is_store_lost=True)
    rules.begin_life()
    try:
        rules.settle()
        rules.check_end()
    finally:
        print(world.raw.execute("select id,noun,name,generation,absent,replaces from resource").fetchall())
        print(world.raw.execute("select resource_id,node_id,wanted,sent,done,applied,outcome,reason from placement where resource_id>3").fetchall())
        print(world.raw.execute("select id,kind,state,generation from job").fetchall())
        print(world.raw.execute("select node_id,orphans from node_status").fetchall())
        for n in world.nodes.values():
            print(n.name, n.machine.state.get(("account","alice")), [tuple(r) for r in n.worker.ledger._file.read("select id,name,wanted,done,applied,outcome from entry where noun='account'")])
