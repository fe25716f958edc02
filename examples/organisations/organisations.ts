import type { Owner, Permissions } from 'latchkey'

export type Role = 'owner' | 'admin' | 'member' | 'viewer'

/** What an organisation may do on each plan. */
export const PLANS = {
  free: { reports: ['read'] },
  team: { reports: ['read', 'write'] },
} as const satisfies Readonly<Record<string, Permissions>>

export type Plan = keyof typeof PLANS

export interface Organisation {
  readonly id: string
  readonly plan: Plan
  readonly isSuspended: boolean
  /** The roles of its members, by the id of the person. */
  readonly roles: ReadonlyMap<string, Role>
}

export interface Organisations {
  find(id: string): Organisation | null
  /** The organisations that a person belongs to. */
  of(personId: string): Organisation[]
  /** Replaces the stored organisation. */
  save(organisation: Organisation): void
  /** Removes a person from all organisations. */
  removePerson(personId: string): void
}

/** Two organisations, in memory. Grace belongs to both. */
export function createDemoOrganisations(): Organisations {
  const known = new Map<string, Organisation>()
  const save = (organisation: Organisation) => void known.set(organisation.id, organisation)
  const of = (personId: string) => [...known.values()].filter(({ roles }) => roles.has(personId))

  save({
    id: 'acme',
    plan: 'team',
    isSuspended: false,
    roles: new Map([
      ['u_1', 'owner'],
      ['u_2', 'admin'],
      ['u_3', 'member'],
      ['u_4', 'viewer'],
    ]),
  })
  save({ id: 'globex', plan: 'free', isSuspended: false, roles: new Map([['u_3', 'admin']]) })

  return {
    find: (id) => known.get(id) ?? null,
    of,
    save,
    removePerson(personId) {
      for (const organisation of of(personId)) {
        const others = [...organisation.roles].filter(([id]) => id !== personId)
        save({ ...organisation, roles: new Map(others) })
      }
    },
  }
}

/** The organisation as an owner of keys. */
export function ownerOf({ id }: Pick<Organisation, 'id'>): Owner {
  return { type: 'organization', id }
}

/** The organisation that owns a key. */
export function findOwner(organisations: Organisations, owner: Owner): Organisation | null {
  return owner.type === 'organization' ? organisations.find(owner.id) : null
}
