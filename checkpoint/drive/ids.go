package drive

import (
	"context"
	"sync"
)

// idBatch is how many ids are asked for at once; Drive gives up to 1000. How
// long it keeps them is not documented, so that many hours' worth is unwise.
const idBatch = 200

// An idPool hands out ids that Drive has generated for objects yet to be made.
type idPool struct {
	fetch func(ctx context.Context) ([]string, error)

	mu    sync.Mutex
	ready []string
}

// take returns an id that nobody else has.
func (p *idPool) take(ctx context.Context) (string, error) {
	p.mu.Lock() // held over the request: whoever else needs an id needs it too
	defer p.mu.Unlock()
	if len(p.ready) == 0 {
		ids, err := p.fetch(ctx)
		if err != nil {
			return "", err
		}
		p.ready = ids
	}
	id := p.ready[0]
	p.ready = p.ready[1:]
	return id, nil
}

// drop forgets the ids in stock: Drive has refused one of them.
func (p *idPool) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = nil
}

// generateIDs asks Drive for new ids.
func (s *Store) generateIDs(ctx context.Context) (ids []string, err error) {
	err = s.do(ctx, "get ids from Google Drive", func() error {
		answer, err := s.api.Files.GenerateIds().Context(ctx).Count(idBatch).Space("drive").Type("files").Do()
		if err != nil {
			return err
		}
		ids = answer.Ids
		return nil
	})
	if err == nil && len(ids) == 0 {
		return nil, &AccessError{"get ids from Google Drive", errNoIDs, "it is tried again"}
	}
	return ids, finish("get ids from Google Drive", err)
}
