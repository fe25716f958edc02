import type {
  ApiKey,
  ApiKeyPage,
  IssuedKey,
  IssueKeyRequest,
  ListKeysRequest,
  RotatedKey,
  RotateKeyRequest,
  UpdateKeyRequest,
  Verification,
  VerifyKeyRequest,
} from 'latchkey/client'
import { expectTypeOf } from 'vitest'
import type {
  ApiKeyJson,
  ApiKeyPageJson,
  IssuedKeyJson,
  IssueRequest,
  ListQuery,
  RotatedKeyJson,
  RotateRequest,
  UpdateRequest,
  VerificationJson,
  VerifyRequest,
} from '../../lib/management/schemas.ts'

/**
 * The types of the client are written by hand, so that nobody needs zod for them. Here they are compared with the schemas: where
 * the two part, this does not compile.
 */

/** What a value becomes on its way: dates are texts, what is undefined stays behind, and nothing is read-only. */
type Json<T> = T extends string | number | boolean | null | undefined
  ? T
  : T extends Date
    ? string
    : T extends readonly (infer Entry)[]
      ? Json<Entry>[]
      : T extends object
        ? { -readonly [Member in keyof T]: Json<Exclude<T[Member], undefined>> }
        : T

/** The names of the members of every member of a union. */
type Names<T> = T extends unknown ? keyof T : never
type RequiredNames<T> = { [Member in keyof T]-?: object extends Pick<T, Member> ? never : Member }[keyof T]

// What may be sent: the same members, as many of them required, and each of a type that the schema takes
expectTypeOf<keyof IssueKeyRequest>().toEqualTypeOf<keyof IssueRequest>()
expectTypeOf<RequiredNames<IssueKeyRequest>>().toEqualTypeOf<RequiredNames<IssueRequest>>()
expectTypeOf<Json<IssueKeyRequest>>().toExtend<IssueRequest>()

expectTypeOf<keyof UpdateKeyRequest>().toEqualTypeOf<keyof UpdateRequest>()
expectTypeOf<RequiredNames<UpdateKeyRequest>>().toEqualTypeOf<RequiredNames<UpdateRequest>>()
expectTypeOf<Json<UpdateKeyRequest>>().toExtend<UpdateRequest>()

expectTypeOf<keyof RotateKeyRequest>().toEqualTypeOf<keyof RotateRequest>()
expectTypeOf<Json<RotateKeyRequest>>().toEqualTypeOf<RotateRequest>()

expectTypeOf<keyof VerifyKeyRequest>().toEqualTypeOf<keyof VerifyRequest>()
expectTypeOf<RequiredNames<VerifyKeyRequest>>().toEqualTypeOf<RequiredNames<VerifyRequest>>()
expectTypeOf<Json<VerifyKeyRequest>>().toExtend<VerifyRequest>()

/** In the query an owner is two members. */
type Query = Omit<ListKeysRequest, 'owner'> & {
  ownerType?: string
  ownerId?: string
}
expectTypeOf<keyof Query>().toEqualTypeOf<keyof ListQuery>()
expectTypeOf<Json<Query>>().toExtend<ListQuery>()
expectTypeOf<ListQuery>().toExtend<Json<Query>>()

// And the other way round: whatever the schemas take can be said here
expectTypeOf<IssueRequest>().toExtend<Json<IssueKeyRequest>>()
expectTypeOf<UpdateRequest>().toExtend<Json<UpdateKeyRequest>>()
expectTypeOf<VerifyRequest>().toExtend<Json<VerifyKeyRequest>>()

// What comes back
expectTypeOf<keyof ApiKey>().toEqualTypeOf<keyof ApiKeyJson>()
expectTypeOf<Json<ApiKey>>().toExtend<ApiKeyJson>()
expectTypeOf<ApiKeyJson>().toExtend<Json<ApiKey>>()
expectTypeOf<keyof ApiKeyPage>().toEqualTypeOf<keyof ApiKeyPageJson>()
expectTypeOf<Json<ApiKeyPage>>().toExtend<ApiKeyPageJson>()
expectTypeOf<keyof IssuedKey>().toEqualTypeOf<keyof IssuedKeyJson>()
expectTypeOf<Json<IssuedKey>>().toExtend<IssuedKeyJson>()
expectTypeOf<keyof RotatedKey>().toEqualTypeOf<keyof RotatedKeyJson>()
expectTypeOf<Json<RotatedKey>>().toExtend<RotatedKeyJson>()

expectTypeOf<Names<Verification>>().toEqualTypeOf<Names<VerificationJson>>()
expectTypeOf<Json<Verification>>().toExtend<VerificationJson>()
type Refused<T> = NonNullable<T extends { refused?: infer R } ? R : never>
expectTypeOf<Refused<Verification>['code']>().toEqualTypeOf<Refused<VerificationJson>['code']>()
expectTypeOf<Names<Refused<Verification>>>().toEqualTypeOf<Names<Refused<VerificationJson>>>()
type States<T> = T extends { limits: readonly (infer S)[] } ? S : never
expectTypeOf<Json<States<Verification>>>().toEqualTypeOf<States<VerificationJson>>()
